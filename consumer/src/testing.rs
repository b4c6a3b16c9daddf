//! Helpers of this crate's tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use forebay_fabric::{
    broker::{Acker, Message, Properties, Settlement},
    store::{Appended, Asked, ResultRecord, ResultStore, Standing, TokenAppend, Written},
    ticket::Ticket,
};
use forebay_schemas::{ContentType, JobId, TokenChunk, limits::RESULT_TTL_S_DEFAULT};
use futures_util::FutureExt;
use tokio::sync::Semaphore;

/// Settles no delivery.
struct Detached;

impl Settlement for Detached {
    fn ack(self: Box<Self>) -> bool {
        false
    }

    fn requeue(self: Box<Self>) -> bool {
        false
    }
}

/// A ticket of no delivery.
pub fn ticket(id: JobId) -> Ticket {
    let message = Message {
        exchange: String::new(),
        routing_key: String::new(),
        properties: Properties::default(),
        body: Vec::new(),
    };
    Ticket {
        id,
        acker: Acker::new(Detached),
        content_type: ContentType::Json,
        failures: 0,
        deaths: 0,
        returned: false,
        result_ttl_s: RESULT_TTL_S_DEFAULT,
        notify: None,
        reply_to: None,
        message: Box::new(message),
        trace: None,
    }
}

/// A store in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeStore(Arc<Mutex<Kept>>);

/// All that a [`FakeStore`] holds, and how it answers.
#[derive(Debug, Default)]
pub struct Kept {
    /// The jobs of the last journal that was written.
    pub journal: Vec<JobId>,
    /// How often a journal was written.
    pub writes: usize,
    /// How long that takes.
    pub write_takes: Duration,
    /// The names that were taken over.
    pub taken_over: Vec<String>,
    /// The standings of jobs; any other is free.
    pub standings: BTreeMap<JobId, Standing>,
    /// The jobs whose standing was asked for.
    pub asked: Vec<JobId>,
    /// The jobs that are cancelled.
    pub cancelled: BTreeSet<JobId>,
    /// The entries that were appended to token streams.
    pub appends: Vec<TokenAppend>,
    /// The token streams that were claimed, and the attempts that did.
    pub claims: Vec<(JobId, String)>,
    /// The entries that token streams have from the beginning.
    pub tokens: BTreeMap<JobId, Vec<TokenChunk>>,
    /// The connections for results, if they are bounded; each write takes `write_takes`.
    pub connections: Option<Arc<Semaphore>>,
}

impl FakeStore {
    /// All that it holds.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl ResultStore for FakeStore {
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
        async {
            let connections = self.kept().connections.clone();
            if let Some(connections) = connections {
                let takes = self.kept().write_takes;
                let _connection = connections.acquire().await;
                tokio::time::sleep(takes).await;
            }
            Ok(vec![Written::First; records.len()])
        }
        .boxed()
    }

    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        async { Ok(ids.iter().map(|id| self.kept().cancelled.contains(id)).collect()) }.boxed()
    }

    fn write_journal<'a>(&'a self, _: &'a str, _: u64, jobs: &'a [JobId]) -> Asked<'a, ()> {
        async {
            let takes = self.kept().write_takes;
            tokio::time::sleep(takes).await;
            let mut kept = self.kept();
            kept.journal = jobs.to_vec();
            kept.writes += 1;
            Ok(())
        }
        .boxed()
    }

    fn name_taken_over<'a>(&'a self, worker: &'a str) -> Asked<'a, ()> {
        async {
            self.kept().taken_over.push(worker.into());
            Ok(())
        }
        .boxed()
    }

    fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>> {
        async {
            let mut kept = self.kept();
            kept.appends.extend_from_slice(appends);
            Ok(vec![Appended::Written; appends.len()])
        }
        .boxed()
    }

    fn claim_tokens<'a>(&'a self, id: &'a JobId, owner: &'a str) -> Asked<'a, Vec<TokenChunk>> {
        async {
            let mut kept = self.kept();
            kept.claims.push((id.clone(), owner.to_owned()));
            Ok(kept.tokens.get(id).cloned().unwrap_or_default())
        }
        .boxed()
    }

    fn standings<'a>(&'a self, _: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<Standing>> {
        async {
            let mut kept = self.kept();
            kept.asked.extend_from_slice(ids);
            let standing = |id| kept.standings.get(id).copied();
            Ok(ids.iter().map(|id| standing(id).unwrap_or(Standing::Free { deaths: 0 })).collect())
        }
        .boxed()
    }
}
