//! Stage 5, the in-flight journal: which sequences the device holds.
//!
//! A sequence is entered before the device has it and leaves when the device is done with it: an encoder's after one
//! batch, a decoder's after many steps. A long text is entered while it is tokenized too: that takes memory. A copy in
//! the store outlives the worker. When the worker dies, the copy says which jobs can have killed it (crash attribution,
//! [`ResultStore::standings`]).
//!
//! The copy is written once for each step with new sequences, while the step before is computed, so the device does not
//! wait for it. At most three of an encoder's batches are in the journal, the one that is computed and the next of each
//! lane, and one more for each that the device takes ahead.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use forebay_fabric::{backoff::Backoff, clock, store::ResultStore};
use forebay_schemas::JobId;
use tokio::sync::{Mutex, mpsc, watch};

use crate::lanes::Room;

/// How much longer the copy in the store may name a job than the journal, while other jobs stay in it.
const COPY_LATE_MAX: Duration = Duration::from_millis(500);

/// Consecutive sequences in a journal. Each sequence that is entered gets the next number, so no two ever share one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// The journal that the stages of a worker share, and its copy in the store. Clones are one journal.
#[derive(Debug, Clone)]
pub struct SharedJournal {
    held: Arc<watch::Sender<Held>>,
    /// The version of the journal that the store has.
    written: watch::Receiver<u64>,
    /// Those that wait to enter, first come, first served: so none that has to be alone waits for ever.
    entering: Arc<Mutex<()>>,
}

/// The journal at one moment.
#[derive(Debug, Default)]
struct Held {
    journal: Journal,
    /// Whether a suspect is in it: nothing else enters then.
    is_alone: bool,
    is_closed: bool,
    /// Counts the changes.
    version: u64,
    /// The last change that the store has to know at once: it protects jobs that enter, or the last one has left.
    urgent: u64,
}

impl Held {
    fn admits(&self, alone: bool) -> bool {
        self.is_closed || self.journal.is_empty() || !(alone || self.is_alone)
    }

    fn changed(&mut self, is_urgent: bool) {
        self.version += 1;
        if is_urgent {
            self.urgent = self.version;
        }
    }
}

impl SharedJournal {
    /// An empty journal of `worker`, which starts. An earlier one of its name has died: that is counted first.
    pub fn start(worker: String, store: Arc<dyn ResultStore>) -> Self {
        let (held, seen) = watch::channel(Held::default());
        let (write, written) = watch::channel(0);
        // On a task of its own, so that no write is under way any more once the journal is closed, whichever stages
        // were abandoned.
        tokio::spawn(keep_copy(worker, store, seen, write));
        Self { held: Arc::new(held), written, entering: Arc::default() }
    }

    /// Enters sequences, of each job consecutive items, and waits until the store has them. Those that have to be
    /// alone wait until the journal is empty, and all others wait until they have left. `None`: the journal is closed,
    /// because the worker ends.
    pub async fn enter<'a>(
        &self,
        runs: impl Iterator<Item = (&'a JobId, Range<usize>)>,
        alone: bool,
    ) -> Option<Sequences> {
        let turn = self.entering.lock().await;
        // The sender is this value's.
        let _ = self.held.subscribe().wait_for(|held| held.admits(alone)).await;
        let mut entered = None;
        self.held.send_modify(|held| {
            if !held.is_closed {
                held.is_alone = alone;
                held.changed(true);
                entered = Some((held.journal.enter(runs), held.version));
            }
        });
        drop(turn);
        let (sequences, version) = entered?;
        self.written.clone().wait_for(|written| *written >= version).await.ok()?;
        Some(sequences)
    }

    /// Removes sequences that were entered together.
    pub fn leave(&self, sequences: Sequences) {
        if sequences == Sequences::default() {
            return; // none
        }
        self.held.send_modify(|held| {
            held.journal.leave(sequences);
            held.changed(held.journal.is_empty());
        });
    }

    /// Leaves no copy behind: a worker that ends in good order has killed itself of nothing. Waits until the store
    /// has removed it. Nothing enters any more.
    pub async fn close(&self) {
        let mut version = 0;
        self.held.send_modify(|held| {
            held.journal = Journal::default();
            held.is_closed = true;
            held.changed(true);
            version = held.version;
        });
        // It fails only with the runtime.
        let _ = self.written.clone().wait_for(|written| *written >= version).await;
    }
}

/// Writes the journal's copy when it changes, until no stage has the journal any more. What is in it then stays: those
/// stages ended before their time.
async fn keep_copy(
    worker: String,
    store: Arc<dyn ResultStore>,
    mut held: watch::Receiver<Held>,
    written: watch::Sender<u64>,
) {
    let started_at_ms = clock::now_ms();
    let mut backoff = backoff();
    while let Err(error) = store.name_taken_over(&worker).await {
        tracing::warn!(%error, "can't read an earlier in-flight journal; waiting for the store");
        tokio::time::sleep(backoff.next_pause()).await;
    }
    let mut known = 0;
    while held.wait_for(|held| held.version > known).await.is_ok() {
        // Jobs that have left are written with the next that enter, if those come soon.
        let urgent = held.wait_for(|held| held.urgent > known);
        let _ = tokio::time::timeout(COPY_LATE_MAX, urgent).await;
        let mut backoff = self::backoff();
        loop {
            let version = held.borrow().version;
            let jobs: Vec<JobId> = held.borrow().journal.jobs().into_iter().cloned().collect();
            match store.write_journal(&worker, started_at_ms, &jobs).await {
                Ok(()) => {
                    known = version;
                    break;
                }
                // Without a store no result could be written either: this waits until it is back.
                Err(error) => {
                    tracing::warn!(%error, "can't write the in-flight journal; waiting for the store");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
        written.send_replace(known);
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
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
    /// The journal.
    pub journal: SharedJournal,
    /// Sequences that the device is done with.
    pub done: mpsc::Receiver<Sequences>,
}

impl Journaling {
    /// Runs until its input ends and the device holds nothing, or until the device's stage has ended before its time:
    /// then what the device held stays in the journal, for the crash attribution.
    pub async fn run<S: Step>(self, mut steps: mpsc::Receiver<Due<S>>) {
        let Self { journal, mut done } = self;
        let entering = async {
            while let Some(Due { step, room }) = steps.recv().await {
                let entered = journal.enter(step.runs(), step.is_alone()).await;
                let Some(sequences) = entered else { return };
                room.send(Journaled { step, sequences });
            }
        };
        // At the same time, since a suspect waits until all others have left.
        let leaving = async {
            while let Some(sequences) = done.recv().await {
                journal.leave(sequences);
            }
        };
        let mut leaving = std::pin::pin!(leaving);
        tokio::select! {
            biased;
            () = &mut leaving => {}
            () = entering => leaving.await,
        }
    }
}

#[cfg(test)]
mod tests;
