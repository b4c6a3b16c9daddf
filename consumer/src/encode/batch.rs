//! Stage 4: tokenized parts of jobs to batches. A full batch goes at once; one that is not full waits a moment
//! for batch-mates, and for as long as the device is busy.
//!
//! A batch is packed only when the device has room for another one of its lane, so an urgent input that comes meanwhile
//! can still join the next. All that is tokenized is taken: it waits here, where tenants go in fair order, and not in
//! the order in which it came. What the worker may hold bounds it, in deliveries and in bytes.

use std::{sync::Arc, time::Duration};

use forebay_fabric::disposition::Disposition;
use forebay_schemas::Lane;
use metrics::histogram;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    encode::packer::{Batch, BatchLimits, Entry, Packer},
    fair::Weights,
    in_flight::Part,
    journal::{Due, Journaled},
    lanes::{LaneReceiver, LaneSender, Lanes, Room},
    stats::Stats,
};

/// Packing of tokenized parts into batches.
pub struct Batching {
    /// The limits of a batch.
    pub limits: BatchLimits,
    /// The tenants' weights.
    pub weights: Weights,
    /// How long a batch that is not full waits for batch-mates.
    pub linger: Duration,
    /// How many tokens a batch may have, as the stage that computes publishes it.
    pub budget: watch::Receiver<usize>,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// Counts the tokens that wait.
    pub stats: Arc<Stats>,
    /// The device's input, of which each batch has room in its lane.
    pub device: LaneSender<Journaled<Batch>>,
    /// Where batches go before the device gets them.
    pub batches: mpsc::Sender<Due<Batch>>,
    /// Where jobs go whose last part is not to be computed.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Batching {
    /// Runs until its input ends and all of it is packed.
    pub async fn run(mut self, mut tokenized: LaneReceiver<Vec<Part>>) {
        let mut packer = Packer::new(self.limits, &self.weights);
        let mut input_ended = false;
        while !(input_ended && packer.is_empty()) {
            self.stats.pending(packer.all_tokens());
            // Without a change this is one load of an atomic, and the loop runs for each job.
            if self.budget.has_changed().unwrap_or(false) {
                packer.set_tokens_max(*self.budget.borrow_and_update());
            }
            let due_at = packer.oldest().map(|since| since + self.linger);
            let due =
                packer.is_full() || input_ended || due_at.is_some_and(|at| at <= Instant::now());
            let packs = Lanes::each(|lane| due && packer.waits(lane));
            let goes_on = tokio::select! {
                biased;
                room = self.device.reserve(Lane::Interactive), if packs.interactive => {
                    self.send(packer.pack(Lane::Interactive, Instant::now()), room).await
                }
                room = self.device.reserve(Lane::Batch), if packs.batch => {
                    self.send(packer.pack(Lane::Batch, Instant::now()), room).await
                }
                parts = tokenized.recv(), if !input_ended => {
                    input_ended = parts.is_none();
                    for part in parts.into_iter().flatten() {
                        self.push(part, &mut packer).await;
                    }
                    true
                }
                () = sleep_until(due_at), if !due => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Adds a part to those that wait, unless the rest of its job is not worth computing.
    async fn push(&self, part: Part, packer: &mut Packer) {
        let Part { job, first, inputs } = part;
        if job.begins() {
            let entry = Entry {
                first,
                inputs,
                finish: job.finish,
                input_type: job.input_type,
                alone: job.alone,
                job: job.clone(),
                arrived_at: Instant::now(),
            };
            packer.push(job.lane, job.job.tenant.as_deref(), entry);
        } else if let Some(disposition) = job.let_go(self.attempts_max) {
            drop(self.not_computed.send(disposition).await);
        }
    }

    /// Passes a batch on. `false` if the stages after this one have ended.
    async fn send(&self, batch: Batch, room: Option<Room<Journaled<Batch>>>) -> bool {
        let Some(room) = room else { return false };
        histogram!("forebay_batch_tokens").record(batch.packed.tokens() as f64);
        histogram!("forebay_batch_items").record(batch.packed.sequences() as f64);
        self.batches.send(Due { step: batch, room }).await.is_ok()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
