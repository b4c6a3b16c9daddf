//! Stage 1: messages to jobs. A message that is no job goes straight to be settled.

use std::sync::Arc;

use forebay_fabric::{
    broker::{Delivery, JobSource},
    clock::Clock,
    disposition::Disposition,
    fail, intake,
    telemetry::Health,
};
use forebay_schemas::{Lane, Limits, Work, limits::TOKEN_VECTORS_BYTES_MAX};
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    in_hand::InHand,
    job::Decoded,
    lanes::LaneSender,
    memory,
    pace::{self, Hold},
};

/// The condition of the worker's health that says whether the endpoint of a remote model is called. While it does not
/// hold, no job is taken; those in hand wait.
pub const REMOTE: &str = "remote";

/// Decoding of the messages of one lane.
pub struct Decode {
    /// The lane.
    pub lane: Lane,
    /// The most deliveries that it holds.
    pub prefetch_max: u16,
    /// How many are worth holding, where the model says so.
    pub hold: watch::Receiver<Hold>,
    /// The most values in a row of the model's results.
    pub row_values_max: usize,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// While it names a problem of the store or the endpoint, nothing is taken; one of memory, one job at a time.
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
    pub async fn run(self, source: Box<dyn JobSource>, stop: CancellationToken) {
        let window = source.window();
        tokio::select! {
            () = self.take(source, stop) => {}
            () = pace::keep(window, self.lane, self.hold.clone(), self.prefetch_max) => {}
        }
    }

    async fn take(&self, mut source: Box<dyn JobSource>, stop: CancellationToken) {
        let lane = self.lane;
        let decoded = counter!("forebay_decode_jobs_total", "lane" => lane.as_str());
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
                Ok((job, mut ticket)) => {
                    ticket.acker.hold_more(result_bytes(&job.work, self.row_values_max));
                    decoded.increment(1);
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

    /// The next delivery. Without a store to hold its result, or an endpoint to call, a job is better left in its
    /// queue. Where memory is short it waits for jobs in hand to be done; with none in hand, waiting would make none
    /// free.
    async fn next(&self, source: &mut Box<dyn JobSource>) -> Option<Delivery> {
        self.health.until(&["store", REMOTE]).await;
        tokio::select! {
            biased;
            () = self.health.until(&[memory::CONDITION]) => {}
            () = self.in_hand.until_empty() => {}
        }
        source.next().await
    }
}

/// Bytes that a value of a result takes until its job is settled: four as it is computed, and up to twelve as a decimal
/// number in the record.
const RESULT_VALUE_BYTES: u64 = 16;

/// Tokens of a generation whose job names no limit, as far as its memory is counted before.
const TOKENS_EXPECTED: u32 = 1_024;
/// The most tokens of a generation that are counted before: a limit above is one that no publisher means.
const TOKENS_COUNTED_MAX: u32 = 1 << 17;

/// Bytes that a job's results will take, at most.
fn result_bytes(work: &Work, row_values_max: usize) -> u64 {
    let values = (work.inputs() as u64).saturating_mul(row_values_max as u64);
    let values = match work {
        // More is refused as soon as its texts are tokenized.
        Work::EmbedTokens { .. } => values.min(TOKEN_VECTORS_BYTES_MAX / 4),
        // Of each token its id, about four bytes of text, and what it is returned with. Where the job doesn't say how
        // many it is to have, few have more than this.
        Work::Generate { params, .. } => {
            let tokens =
                u64::from(params.max_tokens.unwrap_or(TOKENS_EXPECTED).min(TOKENS_COUNTED_MAX));
            tokens * (2 + params.logprobs.map_or(0, |top| 4 * (1 + u64::from(top))))
        }
        _ => values,
    };
    values.saturating_mul(RESULT_VALUE_BYTES)
}
