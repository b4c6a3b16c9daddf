//! Stage 7: writes results, then acknowledges; nothing else in the worker does either.
//!
//! While the store is away everything waits here, and the stages before fill up and stop taking work.
//! What waits for the broker alone (copies, another try, dead letters) waits beside it.

use std::sync::Arc;

use forebay_fabric::{
    answer::{Answerer, Errand},
    intake::Ended,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::{assemble::assemble, compute::Computed, stats::Stats};

/// Messages ended in one round trip, at most.
const ENDED_MAX: usize = 256;

/// The stage.
pub struct Settle {
    /// Writes the answers.
    pub answerer: Answerer,
    /// What the values of a classifier's row are called.
    pub labels: Vec<String>,
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
        // No more than there are unsettled deliveries.
        let mut errands: FuturesUnordered<Errand> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = errands.next() => self.stats.settled(1),
                Some(batch) = computed.recv() => {
                    let whole = assemble(batch, &self.labels);
                    let jobs = whole.len();
                    let left = self.answerer.answer(whole).await;
                    self.stats.settled((jobs - left.len()) as u64);
                    errands.extend(left);
                }
                Some(first) = ended.recv() => {
                    let mut together = vec![first];
                    while together.len() < ENDED_MAX && let Ok(next) = ended.try_recv() {
                        together.push(next);
                    }
                    let jobs = together.len();
                    let left = self.answerer.end(together).await;
                    self.stats.settled((jobs - left.len()) as u64);
                    errands.extend(left);
                }
                else => return,
            }
        }
    }
}
