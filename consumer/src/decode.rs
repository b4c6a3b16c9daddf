//! Stage 1: messages to jobs. What is no job goes straight to its end.

use std::sync::Arc;

use forebay_fabric::{
    broker::Subscription,
    clock, fail,
    intake::{self, Ended},
};
use forebay_schemas::{Lane, Limits};
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{job::Decoded, lanes::LaneSender, stats::Stats};

/// One lane's decoder.
pub struct Decode {
    /// The lane.
    pub lane: Lane,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// Counts what is taken.
    pub stats: Arc<Stats>,
    /// Where jobs go.
    pub jobs: LaneSender<Decoded>,
    /// Where the rest goes.
    pub ended: mpsc::Sender<Ended>,
}

impl Decode {
    /// Takes deliveries until `stop`, then hands back what it has not taken.
    pub async fn run(self, mut subscription: Subscription, stop: CancellationToken) {
        let lane = self.lane;
        while let Some(Some(delivery)) = stop.run_until_cancelled(subscription.next()).await {
            self.stats.taken();
            fail::point("after_delivery");
            let passed_on = match intake::read(delivery, &self.limits) {
                Ok((job, ticket)) => {
                    counter!("forebay_decode_jobs_total", "lane" => lane.as_str()).increment(1);
                    let received_at_ms = clock::now_ms();
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
        subscription.stop().await;
    }
}
