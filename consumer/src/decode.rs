//! Stage 1: messages to jobs. A message that is no job goes straight to be settled.

use std::sync::Arc;

use forebay_fabric::{
    broker::{Delivery, JobSource},
    clock::Clock,
    disposition::Disposition,
    fail, intake,
    telemetry::Health,
};
use forebay_schemas::{Lane, Limits};
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{in_hand::InHand, job::Decoded, lanes::LaneSender, memory};

/// Decoding of the messages of one lane.
pub struct Decode {
    /// The lane.
    pub lane: Lane,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// While it names a problem of the store or of memory, nothing is taken.
    pub health: Health,
    /// Dates the jobs.
    pub clock: Clock,
    /// Counts what is taken.
    pub in_hand: Arc<InHand>,
    /// Where jobs go.
    pub jobs: LaneSender<Decoded>,
    /// Where messages go that are no jobs.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Decode {
    /// Takes deliveries until `stop`, and then those that the broker had sent by that time: given back, they would come
    /// again, to another worker.
    pub async fn run(self, mut source: Box<dyn JobSource>, stop: CancellationToken) {
        let lane = self.lane;
        let mut draining = false;
        loop {
            let next = if draining {
                self.next(&mut source).await
            } else if let Some(next) = stop.run_until_cancelled(self.next(&mut source)).await {
                next
            } else {
                source.cancel();
                draining = true;
                continue;
            };
            let Some(delivery) = next else { break };
            self.in_hand.taken();
            fail::point("after_delivery");
            let passed_on = match intake::read(delivery, &self.limits) {
                Ok((job, ticket)) => {
                    counter!("forebay_decode_jobs_total", "lane" => lane.as_str()).increment(1);
                    let received_at_ms = self.clock.now_ms();
                    self.jobs
                        .send(lane, Decoded { job, ticket, lane, received_at_ms })
                        .await
                        .is_ok()
                }
                Err(disposition) => {
                    counter!("forebay_decode_refused_total", "lane" => lane.as_str()).increment(1);
                    self.not_computed.send(disposition).await.is_ok()
                }
            };
            if !passed_on {
                break;
            }
        }
        source.stop().await;
    }

    /// The next delivery. Without a store or memory to hold its result, a job is better left in its queue.
    async fn next(&self, source: &mut Box<dyn JobSource>) -> Option<Delivery> {
        self.health.until(&["store", memory::CONDITION]).await;
        source.next().await
    }
}
