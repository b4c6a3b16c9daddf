//! Stage 1: messages to jobs. What is no job goes straight to its end.

use std::sync::Arc;

use forebay_fabric::{
    broker::{Delivery, JobSource},
    clock::Clock,
    fail,
    intake::{self, Ended},
    telemetry::Health,
};
use forebay_schemas::{Lane, Limits};
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{job::Decoded, lanes::LaneSender, memory, stats::Stats};

/// One lane's decoder.
pub struct Decode {
    /// The lane.
    pub lane: Lane,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// Says when nothing is to be taken.
    pub health: Health,
    /// What tells the time.
    pub clock: Clock,
    /// Counts what is taken.
    pub stats: Arc<Stats>,
    /// Where jobs go.
    pub jobs: LaneSender<Decoded>,
    /// Where the rest goes.
    pub ended: mpsc::Sender<Ended>,
}

impl Decode {
    /// Takes deliveries until `stop`, and then what the broker had handed out by that time: to give that
    /// back would make it come again, to another worker.
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
            self.stats.taken();
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
                Err(ended) => {
                    counter!("forebay_decode_refused_total", "lane" => lane.as_str()).increment(1);
                    self.ended.send(ended).await.is_ok()
                }
            };
            if !passed_on {
                break;
            }
        }
        source.stop().await;
    }

    /// Without a store or memory to hold its result, a job is better left in its queue.
    async fn next(&self, source: &mut Box<dyn JobSource>) -> Option<Delivery> {
        self.health.until(&["store", memory::CONDITION]).await;
        source.next().await
    }
}
