//! Stage 5: says in the store what is about to be computed, before it is.
//!
//! When a worker dies, the note tells which jobs can have killed it: one write a batch, made while the
//! batch before is computed, so the device does not wait for it. At most two batches stand in the note,
//! the one that is computed and the next.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{
    backoff::Backoff,
    store::{Note, ResultStore},
};
use forebay_schemas::JobId;
use tokio::sync::mpsc;

use crate::{packer::Batch, stats::Stats};

/// The stage.
pub struct Noting {
    /// Who notes.
    pub worker: String,
    /// Where notes go.
    pub store: Arc<dyn ResultStore>,
    /// Tells what has been computed.
    pub stats: Arc<Stats>,
    /// Where noted batches go.
    pub batches: mpsc::Sender<Batch>,
}

impl Noting {
    /// Runs until its input ends and all of it is computed, then leaves no note behind.
    pub async fn run(self, mut packed: mpsc::Receiver<Batch>) {
        let mut note = Note::new();
        let mut suspect_noted = false;
        let mut input_ended = false;
        while !(input_ended && note.is_empty()) {
            tokio::select! {
                biased;
                batch = packed.recv(), if !input_ended => match batch {
                    None => input_ended = true,
                    Some(batch) => {
                        if batch.alone || suspect_noted {
                            self.until_computed(&mut note).await;
                        }
                        suspect_noted = batch.alone;
                        // First the room, then the note: what waits elsewhere is not about to be computed.
                        let Ok(room) = self.batches.reserve().await else { return };
                        self.forget_computed(&mut note);
                        note.insert(batch.number, ids(&batch));
                        self.write(&note).await;
                        room.send(batch);
                    }
                },
                () = self.stats.computed_one.notified(), if !note.is_empty() => {
                    self.forget_computed(&mut note);
                    if note.is_empty() {
                        self.write(&note).await;
                    }
                }
            }
        }
    }

    /// Waits until everything noted is computed.
    async fn until_computed(&self, note: &mut Note) {
        self.forget_computed(note);
        while !note.is_empty() {
            self.stats.computed_one.notified().await;
            self.forget_computed(note);
        }
    }

    fn forget_computed(&self, note: &mut Note) {
        let computed = self.stats.batch_computed();
        note.retain(|number, _| *number > computed);
    }

    /// Without a store no result could be written either: this waits until it is back.
    async fn write(&self, note: &Note) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while let Err(error) = self.store.note(&self.worker, note).await {
            tracing::warn!(%error, "can't note what is computed; waiting for the store");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

fn ids(batch: &Batch) -> Vec<JobId> {
    batch.pieces.iter().map(|piece| piece.job.job.id.clone()).collect()
}
