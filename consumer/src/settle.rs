//! Stage 6: writes results, then acknowledges; nothing else in the worker does either.
//!
//! While the store is away everything waits here, and the stages before fill up and stop taking work.

use std::sync::Arc;

use forebay_fabric::{answer::Answerer, intake::Ended};
use tokio::sync::mpsc;

use crate::{assemble::assemble, compute::Computed, stats::Stats};

/// Messages ended in one round trip, at most.
const ENDED_MAX: usize = 256;

/// The stage.
pub struct Settle {
    /// Writes the answers.
    pub answerer: Answerer,
    /// Told what was settled.
    pub stats: Arc<Stats>,
}

impl Settle {
    /// Runs until both inputs end and all is settled.
    pub async fn run(
        self,
        mut computed: mpsc::Receiver<Computed>,
        mut ended: mpsc::Receiver<Ended>,
    ) {
        loop {
            tokio::select! {
                Some(batch) = computed.recv() => {
                    let whole = assemble(batch);
                    let jobs = whole.len() as u64;
                    self.answerer.answer(whole).await;
                    self.stats.settled(jobs);
                }
                Some(first) = ended.recv() => {
                    let mut together = vec![first];
                    while together.len() < ENDED_MAX && let Ok(next) = ended.try_recv() {
                        together.push(next);
                    }
                    let jobs = together.len() as u64;
                    self.answerer.end(together).await;
                    self.stats.settled(jobs);
                }
                else => return,
            }
        }
    }
}
