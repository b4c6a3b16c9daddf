//! Waiting for outcomes: for one, or for very many at once.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use forebay_fabric::store::StoreError;
use forebay_schemas::{CodecError, JobId, Outcome};
use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::mpsc, time::Instant};

use crate::{client::Client, waiter::Watch};

/// The error of a wait: no outcome could be read.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// No outcome came in time. The job may still be done; waiting again is fine.
    #[error("job {id}: no result within {}{}", seconds(.after), because(.trouble.as_deref()))]
    Timeout {
        /// The job.
        id: JobId,
        /// The time allowed.
        after: Duration,
        /// Why the last look for results failed, if it did.
        trouble: Option<String>,
    },
    /// The value at the job's result key is no result.
    #[error("job {id}: its result can't be read: {error}")]
    Unreadable {
        /// The job.
        id: JobId,
        /// Why.
        error: CodecError,
    },
    /// Redis can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn because(trouble: Option<&str>) -> String {
    match trouble {
        Some(trouble) => format!(": {trouble}"),
        None => "; it may still be queued or running".to_owned(),
    }
}

/// A job's id and its outcome, or why there is none.
pub type Waited = (JobId, Result<Outcome, WaitError>);

/// Records read at once. They can be megabytes each, and are held until the caller takes them.
const READ_IDS_MAX: usize = 64;

impl Client {
    /// The outcome of a job, if it has one by now. Does not wait.
    pub async fn get(&self, id: &JobId) -> Result<Option<Outcome>, WaitError> {
        let found = self.inner.store.read_results(std::slice::from_ref(id)).await?;
        found.into_iter().flatten().next().map(|bytes| decode(id, &bytes)).transpose()
    }

    /// Waits for the outcome of a job, which any client may have submitted.
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<Outcome, WaitError> {
        let mut waits = std::pin::pin!(self.wait_many([id.clone()], timeout));
        match waits.next().await {
            Some((_, waited)) => waited,
            None => Err(self.timed_out(id.clone(), timeout)),
        }
    }

    /// Waits for the outcomes of many jobs, in the order in which they come. Jobs without one after `timeout` are
    /// yielded then, each with [`WaitError::Timeout`].
    ///
    /// All waits of a client share one task and one subscription; lost connections to Redis are waited out.
    pub fn wait_many(
        &self,
        ids: impl IntoIterator<Item = JobId>,
        timeout: Duration,
    ) -> impl Stream<Item = Waited> + Send {
        let left: HashSet<JobId> = ids.into_iter().collect();
        // Each id is on its way at most once, so sending never waits.
        let (to, ready) = mpsc::channel(left.len().max(1));
        let wait = Wait {
            client: self,
            first: left.iter().cloned().collect(),
            left,
            to,
            ready,
            read: VecDeque::new(),
            timeout,
            deadline: Instant::now() + timeout,
        };
        stream::unfold(wait, |mut wait| async { wait.next().await.map(|waited| (waited, wait)) })
    }

    fn timed_out(&self, id: JobId, after: Duration) -> WaitError {
        WaitError::Timeout { id, after, trouble: self.waiter().trouble() }
    }
}

fn decode(id: &JobId, bytes: &[u8]) -> Result<Outcome, WaitError> {
    Outcome::decode(bytes).map_err(|error| WaitError::Unreadable { id: id.clone(), error })
}

/// The state of one wait for many.
struct Wait<'a> {
    client: &'a Client,
    /// Ids that have not been passed to the waiter yet.
    first: Vec<JobId>,
    /// Ids without an outcome.
    left: HashSet<JobId>,
    to: mpsc::Sender<JobId>,
    /// Ids whose outcome can be read.
    ready: mpsc::Receiver<JobId>,
    /// Outcomes that were read and not yet taken.
    read: VecDeque<Waited>,
    timeout: Duration,
    deadline: Instant,
}

impl Wait<'_> {
    async fn next(&mut self) -> Option<Waited> {
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            self.watch(first, Duration::ZERO).await;
        }
        loop {
            if let Some(waited) = self.read.pop_front() {
                return Some(waited);
            }
            if self.left.is_empty() {
                return None;
            }
            let mut ids = Vec::new();
            let ready = self.ready.recv_many(&mut ids, READ_IDS_MAX);
            match tokio::time::timeout_at(self.deadline, ready).await {
                Ok(_) => self.read(ids).await,
                Err(_) => self.give_up(),
            }
        }
    }

    async fn watch(&self, ids: Vec<JobId>, first_poll: Duration) {
        let watch = Watch { ids, to: self.to.clone(), first_poll };
        // The task lives as long as the client; were it gone, the wait would time out.
        self.client.waiter().watch(watch).await;
    }

    /// Reads the records of `ids`. Those that are not there after all (a notification without its record, a connection
    /// lost in between) are waited for again.
    async fn read(&mut self, ids: Vec<JobId>) {
        let found = match self.client.inner.store.read_results(&ids).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "can't read results; trying again");
                vec![None; ids.len()]
            }
        };
        let mut missed = Vec::new();
        for (id, bytes) in ids.into_iter().zip(found) {
            match bytes {
                Some(bytes) => {
                    self.left.remove(&id);
                    let outcome = decode(&id, &bytes);
                    self.read.push_back((id, outcome));
                }
                None => missed.push(id),
            }
        }
        if !missed.is_empty() {
            self.watch(missed, RETRY_AFTER).await;
        }
    }

    fn give_up(&mut self) {
        for id in self.left.drain() {
            let error = self.client.timed_out(id.clone(), self.timeout);
            self.read.push_back((id, Err(error)));
        }
    }
}

/// The pause before a record that could not be read is looked up again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
