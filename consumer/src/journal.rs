//! Stage 5, the in-flight journal: which sequences the device holds.
//!
//! A sequence is entered before the device has it and leaves when the device is done with it: an encoder's after one
//! batch, a decoder's after many steps. A copy in the store outlives the worker. When the worker dies, the copy says
//! which jobs can have killed it (crash attribution, [`ResultStore::deaths`]).
//!
//! The copy is written once for each step with new sequences, while the step before is computed, so the device does not
//! wait for it. At most three of an encoder's batches are in the journal, the one that is computed and the next of each
//! lane, and one more for each that the device takes ahead.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use forebay_fabric::{backoff::Backoff, store::ResultStore};
use forebay_schemas::JobId;
use tokio::sync::mpsc;

use crate::lanes::Room;

/// Consecutive sequences in a journal. Each sequence that is entered gets the next number, so no two ever share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    first: u64,
    end: u64,
}

/// The sequences that the device holds.
#[derive(Debug, Default)]
pub struct Journal {
    /// The job of each run of consecutive sequences of one job, by the number of the run's first one.
    runs: BTreeMap<u64, JobId>,
    /// Sequences entered so far.
    entered: u64,
}

impl Journal {
    /// Enters sequences: of each job, consecutive items.
    pub fn enter<'a>(
        &mut self,
        runs: impl Iterator<Item = (&'a JobId, Range<usize>)>,
    ) -> Sequences {
        let first = self.entered;
        for (job, items) in runs {
            let number = self.entered;
            self.entered += items.len() as u64;
            self.runs.insert(number, job.clone());
        }
        Sequences { first, end: self.entered }
    }

    /// Removes sequences that were entered together.
    pub fn leave(&mut self, sequences: Sequences) {
        let numbers = sequences.first..sequences.end;
        while let Some((&number, _)) = self.runs.range(numbers.clone()).next() {
            self.runs.remove(&number);
        }
    }

    /// Whether the device holds nothing.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The jobs of which the device holds sequences; one that was split comes more than once.
    pub fn jobs(&self) -> Vec<&JobId> {
        self.runs.values().collect()
    }
}

/// Sequences that are given to the device together.
pub trait Step: Send + 'static {
    /// Whether it holds a job that must not share the device with any other.
    fn is_alone(&self) -> bool;
    /// Its sequences: of each job, consecutive items.
    fn runs(&self) -> impl Iterator<Item = (&JobId, Range<usize>)> + Send;
}

/// A step that is about to be journaled, with room for it in the device's input. First the room, then the entry: what
/// waits elsewhere is not about to be computed.
#[derive(Debug)]
pub struct Due<S> {
    /// The step.
    pub step: S,
    /// The room.
    pub room: Room<Journaled<S>>,
}

/// A step whose sequences are in the journal: only such a step may go to the device.
#[derive(Debug)]
pub struct Journaled<S> {
    /// The step.
    pub step: S,
    /// Its sequences' entry. The device's stage sends it back when it is done with them.
    pub sequences: Sequences,
}

/// The stage that keeps the journal, between packing and computing.
pub struct Journaling {
    /// This worker's id.
    pub worker: String,
    /// The store of the copy.
    pub store: Arc<dyn ResultStore>,
    /// Sequences that the device is done with.
    pub done: mpsc::Receiver<Sequences>,
}

impl Journaling {
    /// Runs until its input ends and the device holds nothing, then leaves no copy behind.
    pub async fn run<S: Step>(self, mut steps: mpsc::Receiver<Due<S>>) {
        let Self { worker, store, done } = self;
        let mut held = Held { journal: Journal::default(), done };
        let mut suspect_is_held = false;
        let mut input_ended = false;
        while !(input_ended && held.journal.is_empty()) {
            tokio::select! {
                biased;
                step = steps.recv(), if !input_ended => match step {
                    None => input_ended = true,
                    Some(Due { step, room }) => {
                        if (step.is_alone() || suspect_is_held) && !held.until_empty().await {
                            return;
                        }
                        suspect_is_held = step.is_alone();
                        held.leave_done();
                        let sequences = held.journal.enter(step.runs());
                        write(&*store, &worker, &held.journal).await;
                        room.send(Journaled { step, sequences });
                    }
                },
                done = held.done.recv(), if !held.journal.is_empty() => match done {
                    // The device's stage has ended before its time: the copy stays, for the crash attribution.
                    None => return,
                    Some(sequences) => {
                        held.journal.leave(sequences);
                        held.leave_done();
                        if held.journal.is_empty() {
                            write(&*store, &worker, &held.journal).await;
                        }
                    }
                },
            }
        }
    }
}

/// The journal, and the sequences that are about to leave it.
struct Held {
    journal: Journal,
    done: mpsc::Receiver<Sequences>,
}

impl Held {
    /// Removes what the device has reported as done by now.
    fn leave_done(&mut self) {
        while let Ok(sequences) = self.done.try_recv() {
            self.journal.leave(sequences);
        }
    }

    /// Waits until the device holds nothing. `false` if its stage has ended.
    async fn until_empty(&mut self) -> bool {
        while !self.journal.is_empty() {
            let Some(sequences) = self.done.recv().await else { return false };
            self.journal.leave(sequences);
        }
        true
    }
}

/// Writes the copy. Without a store no result could be written either: this waits until it is back.
async fn write(store: &dyn ResultStore, worker: &str, journal: &Journal) {
    let jobs = journal.jobs();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while let Err(error) = store.write_journal(worker, &jobs).await {
        tracing::warn!(%error, "can't write the in-flight journal; waiting for the store");
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_leave_in_any_order_and_a_job_stays_until_its_last_one_is_done() {
        let split: JobId = "split".parse().unwrap();
        let small: JobId = "small".parse().unwrap();
        let mut journal = Journal::default();
        let first = journal.enter([(&split, 0..300)].into_iter());
        let second = journal.enter([(&split, 300..301), (&small, 0..1)].into_iter());
        assert_eq!(journal.jobs(), [&split, &split, &small]);
        journal.leave(second);
        assert_eq!(journal.jobs(), [&split]);
        let third = journal.enter([(&small, 1..2)].into_iter());
        journal.leave(first);
        assert_eq!(journal.jobs(), [&small]);
        journal.leave(third);
        assert!(journal.is_empty());
    }
}
