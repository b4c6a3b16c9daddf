//! Stage 4: tokenized jobs to batches. A full batch goes at once; one that is not full waits a moment
//! for batch-mates, and for as long as the device is busy.

use std::{sync::Arc, time::Duration};

use forebay_fabric::disposition::Disposition;
use metrics::histogram;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    encode::{
        in_flight::InFlight,
        packer::{Batch, BatchLimits, Entry, Packer},
    },
    job::{Tokenized, is_ours},
    lanes::LaneReceiver,
    stats::Stats,
};

/// Packing of tokenized jobs into batches.
pub struct Batching {
    /// The limits of a batch.
    pub limits: BatchLimits,
    /// How long a batch that is not full waits for batch-mates.
    pub linger: Duration,
    /// How many tokens a batch may have, as the stage that computes publishes it.
    pub budget: watch::Receiver<usize>,
    /// Counts the tokens that wait.
    pub stats: Arc<Stats>,
    /// Where batches go.
    pub batches: mpsc::Sender<Batch>,
    /// Where jobs go whose deliveries were lost.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Batching {
    /// Runs until its input ends and all of it is packed.
    pub async fn run(mut self, mut tokenized: LaneReceiver<Tokenized>) {
        let mut packer = Packer::new(self.limits);
        // Enough to fill the next batch and the one after it, whatever the sizes of the jobs.
        let pending_tokens_max = self.limits.tokens_max.saturating_mul(2);
        let mut input_ended = false;
        while !(input_ended && packer.is_empty()) {
            self.stats.pending(packer.tokens());
            // Without a change this is one load of an atomic, and the loop runs for each job.
            if self.budget.has_changed().unwrap_or(false) {
                packer.set_tokens_max(*self.budget.borrow_and_update());
            }
            let due_at = packer.oldest().map(|since| since + self.linger);
            let due =
                packer.is_full() || input_ended || due_at.is_some_and(|at| at <= Instant::now());
            tokio::select! {
                biased;
                room = self.batches.reserve(), if due && !packer.is_empty() => match room {
                    Ok(room) => {
                        self.drop_lost(&mut packer).await;
                        if packer.is_empty() {
                            continue;
                        }
                        let batch = packer.pack();
                        histogram!("forebay_batch_tokens").record(batch.packed.tokens() as f64);
                        histogram!("forebay_batch_items").record(batch.packed.sequences() as f64);
                        room.send(batch);
                    }
                    Err(_) => return,
                },
                job = tokenized.recv(), if !input_ended && packer.tokens() < pending_tokens_max => {
                    match job {
                        Some(job) => packer.push(job.admitted.lane, entry(job)),
                        None => input_ended = true,
                    }
                }
                () = sleep_until(due_at), if !due => {}
            }
        }
    }

    /// Removes jobs whose deliveries were lost and of which nothing is packed yet.
    async fn drop_lost(&self, packer: &mut Packer) {
        for job in packer.remove_unstarted(|job| !is_ours(&job.ticket, "batch")) {
            // Nothing of it is packed, so this is its only reference.
            let Some(job) = Arc::into_inner(job) else { continue };
            let ticket = job.into_parts().1;
            // An error says that settling has ended: the rest is left to the broker.
            let _ = self.not_computed.send(Disposition::GiveBack(ticket.acker)).await;
        }
    }
}

fn entry(tokenized: Tokenized) -> Entry {
    let Tokenized { admitted, usage, inputs } = tokenized;
    let job = Arc::new(InFlight::new(admitted, inputs.len(), usage));
    Entry { finish: job.finish, alone: job.alone, job, inputs, arrived_at: Instant::now() }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
