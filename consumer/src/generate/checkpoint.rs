//! The device's stage and the store, on tasks beside it: entries of token streams are written, sequences enter
//! the journal, cancel requests are looked up. The device never waits for an answer; it does wait for room while the
//! store is away.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{
    backoff::Backoff,
    disposition::Disposition,
    store::{Appended, Asked, ResultStore, TokenAppend},
};
use forebay_schemas::JobId;
use metrics::counter;
use tokio::sync::mpsc;

use crate::{
    generate::schedule::Key,
    journal::{Sequences, SharedJournal},
};

/// Entries that are written in one round trip, at most.
const TOGETHER_MAX: usize = 256;

/// A request of the device's stage.
#[derive(Debug)]
pub enum Order {
    /// Write this entry.
    Append(Key, Box<TokenAppend>),
    /// Settle this job, once the entries before it are written.
    Settle(Disposition),
    /// Look up which of these are cancelled.
    Look(Vec<(Key, JobId)>),
}

/// A sequence that is about to run.
#[derive(Debug)]
pub struct Entering {
    /// Its name in the schedule.
    pub key: Key,
    /// Its job.
    pub id: JobId,
    /// Whether it must run alone.
    pub alone: bool,
}

/// An answer to the device's stage.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// The sequence is in the journal.
    Entered(Key, Sequences),
    /// The job was cancelled.
    Cancelled(Key),
    /// The stream ends there, and not where it was thought to.
    Ends(Key, usize),
    /// Another attempt writes the stream now.
    Fenced(Key),
}

/// Writing of token streams, before results.
pub struct Writing {
    /// The store.
    pub store: Arc<dyn ResultStore>,
    /// Where answers go. It has room for all that can be asked at once.
    pub replies: mpsc::Sender<Reply>,
    /// Where jobs go that are done.
    pub settle: mpsc::Sender<Disposition>,
}

impl Writing {
    /// Runs until its input ends.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) {
        let mut together = Vec::with_capacity(TOGETHER_MAX);
        while orders.recv_many(&mut together, TOGETHER_MAX).await > 0 {
            let mut appends = Vec::new();
            let mut settled = Vec::new();
            let mut looked = Vec::new();
            for order in together.drain(..) {
                match order {
                    Order::Append(key, append) => appends.push((key, *append)),
                    Order::Settle(disposition) => settled.push(disposition),
                    Order::Look(ids) => looked.extend(ids),
                }
            }
            self.append(appends).await;
            for disposition in settled {
                if self.settle.send(disposition).await.is_err() {
                    return;
                }
            }
            self.look(looked).await;
        }
    }

    async fn append(&self, appends: Vec<(Key, TokenAppend)>) {
        if appends.is_empty() {
            return;
        }
        let (keys, appends): (Vec<Key>, Vec<TokenAppend>) = appends.into_iter().unzip();
        let appended = ask(|| self.store.append_tokens(&appends)).await;
        counter!("forebay_generate_checkpoints_total").increment(appends.len() as u64);
        for (key, appended) in keys.into_iter().zip(appended) {
            let reply = match appended {
                Appended::Written => continue,
                Appended::Ends { at } => Reply::Ends(key, at as usize),
                Appended::Fenced => Reply::Fenced(key),
            };
            // Without a stage that asks, nothing is to be answered.
            let _ = self.replies.send(reply).await;
        }
    }

    async fn look(&self, looked: Vec<(Key, JobId)>) {
        if looked.is_empty() {
            return;
        }
        let (keys, ids): (Vec<Key>, Vec<JobId>) = looked.into_iter().unzip();
        let cancelled = ask(|| self.store.cancelled(&ids)).await;
        for (key, _) in keys.into_iter().zip(cancelled).filter(|(_, cancelled)| *cancelled) {
            let _ = self.replies.send(Reply::Cancelled(key)).await;
        }
    }
}

/// Journaling of sequences before they run.
pub struct Entry {
    /// The store of cancel requests.
    pub store: Arc<dyn ResultStore>,
    /// The journal.
    pub journal: SharedJournal,
    /// Where answers go.
    pub replies: mpsc::Sender<Reply>,
}

impl Entry {
    /// Runs until its input ends, or the journal is closed.
    pub async fn run(self, mut entering: mpsc::Receiver<Entering>) {
        let mut together = Vec::with_capacity(TOGETHER_MAX);
        while entering.recv_many(&mut together, TOGETHER_MAX).await > 0 {
            let ids: Vec<JobId> = together.iter().map(|entering| entering.id.clone()).collect();
            let cancelled = ask(|| self.store.cancelled(&ids)).await;
            let mut wanted = Vec::new();
            for (entering, cancelled) in together.drain(..).zip(cancelled) {
                if cancelled {
                    let _ = self.replies.send(Reply::Cancelled(entering.key)).await;
                } else {
                    wanted.push(entering);
                }
            }
            for entering in wanted {
                let run = [(&entering.id, 0..1)];
                let entered = self.journal.enter(run.into_iter(), entering.alone).await;
                let Some(entered) = entered else { return };
                let _ = self.replies.send(Reply::Entered(entering.key, entered)).await;
            }
        }
    }
}

/// Asks the store until it answers: without it no result could be written either.
async fn ask<'a, T>(request: impl Fn() -> Asked<'a, T>) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        match request().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%error, "generation waits for the store");
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}
