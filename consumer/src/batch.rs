//! Stage 4: tokenised jobs to batches. A full batch goes at once; one that is not full waits a moment
//! for company, and for as long as the device is busy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::histogram;
use tokio::sync::mpsc;

use crate::{
    lanes::LaneReceiver,
    packer::{Batch, BatchLimits, Packer},
    stats::Stats,
    tokenize::Tokenized,
};

/// The stage.
pub struct Batching {
    /// What limits a batch.
    pub limits: BatchLimits,
    /// How long a batch that is not full waits for company.
    pub linger: Duration,
    /// Told how much waits.
    pub stats: Arc<Stats>,
    /// Where batches go.
    pub batches: mpsc::Sender<Batch>,
}

impl Batching {
    /// Runs until its input ends and all of it is packed.
    pub async fn run(self, mut tokenized: LaneReceiver<Tokenized>) {
        let mut packer = Packer::new(self.limits);
        // Enough to fill the next batch and the one after it, whatever the sizes of the jobs.
        let pending_tokens_max = self.limits.tokens_max.saturating_mul(2);
        let mut input_ended = false;
        while !(input_ended && packer.is_empty()) {
            self.stats.pending(packer.tokens());
            let due_at = packer.oldest().map(|since| since + self.linger);
            let due =
                packer.is_full() || input_ended || due_at.is_some_and(|at| at <= Instant::now());
            tokio::select! {
                job = tokenized.recv(), if !input_ended && packer.tokens() < pending_tokens_max => {
                    match job {
                        Some(Tokenized { job, lane, inputs }) => {
                            let finish = job.finish;
                            packer.push(lane, job, inputs, finish, Instant::now());
                        }
                        None => input_ended = true,
                    }
                }
                room = self.batches.reserve(), if due && !packer.is_empty() => match room {
                    Ok(room) => {
                        let batch = packer.pack();
                        histogram!("forebay_batch_tokens").record(batch.packed.tokens() as f64);
                        histogram!("forebay_batch_items").record(batch.packed.sequences() as f64);
                        room.send(batch);
                    }
                    Err(_) => return,
                },
                () = sleep_until(due_at), if !due => {}
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
