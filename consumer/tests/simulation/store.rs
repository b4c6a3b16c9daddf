//! A store for the simulation: it can be away, and it can carry out a command and lose its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use forebay_fabric::{
    rng,
    store::{
        Appended, Asked, ResultRecord, ResultStore, Standing, StoreError, TokenAppend, Written,
    },
};
use forebay_schemas::{JobId, TokenChunk};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::life::Life;

#[derive(Debug, Default)]
pub struct Kept {
    pub records: BTreeMap<JobId, Vec<u8>>,
    pub cancelled: BTreeSet<JobId>,
    journals: BTreeMap<String, BTreeSet<JobId>>,
    suspects: BTreeMap<JobId, BTreeSet<String>>,
    /// Until when the record of a worker that has ended is there. One that lives has its record.
    registered_until: BTreeMap<String, Instant>,
    away_until: Option<Instant>,
    /// How likely an answer is lost.
    trouble: f64,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Store(Arc<Mutex<Kept>>);

impl Store {
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// This worker has ended, and its record goes then.
    pub fn ended(&self, worker: &str, record_goes_in: Duration) {
        let at = Instant::now() + record_goes_in;
        self.kept().registered_until.insert(worker.to_owned(), at);
    }

    pub fn away_for(&self, time: Duration) {
        self.kept().away_until = Some(Instant::now() + time);
    }

    pub fn set_trouble(&self, trouble: f64) {
        self.kept().trouble = trouble;
    }

    pub fn heal(&self) {
        let mut kept = self.kept();
        kept.away_until = None;
        kept.trouble = 0.0;
    }
}

/// One worker's connection.
pub struct Connection {
    pub store: Store,
    pub life: Life,
}

impl Connection {
    /// Does `command` after a round trip, unless the store is away; its answer may be lost.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        command: impl FnOnce(&mut Kept) -> T + Send + 'a,
    ) -> Asked<'a, T> {
        async move {
            tokio::time::sleep(Duration::from_secs_f64(rng::uniform(0.0002..=0.003))).await;
            self.life.breathe().await;
            let lost = |what: &str| StoreError::Unreachable {
                url: "simulation".into(),
                reason: what.into(),
            };
            if self.store.kept().away_until.is_some_and(|until| Instant::now() < until) {
                return Err(lost("away"));
            }
            let answer = command(&mut self.store.kept());
            let trouble = self.store.kept().trouble;
            if rng::uniform(0.0..=1.0) < trouble { Err(lost("no answer")) } else { Ok(answer) }
        }
        .boxed()
    }
}

impl ResultStore for Connection {
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
        self.ask(|kept| {
            let write = |record: &ResultRecord| {
                if kept.records.contains_key(&record.id) {
                    return Written::AlreadyThere;
                }
                kept.records.insert(record.id.clone(), record.bytes.clone());
                Written::First
            };
            records.iter().map(write).collect()
        })
    }

    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        self.ask(|kept| ids.iter().map(|id| kept.cancelled.contains(id)).collect())
    }

    fn write_journal<'a>(&'a self, worker: &'a str, _: u64, jobs: &'a [JobId]) -> Asked<'a, ()> {
        self.ask(|kept| {
            kept.journals.insert(worker.to_owned(), jobs.iter().cloned().collect());
        })
    }

    fn name_taken_over<'a>(&'a self, worker: &'a str) -> Asked<'a, ()> {
        // Each worker of the simulation has a name of its own.
        self.ask(|kept| assert!(!kept.journals.contains_key(worker)))
    }

    fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>> {
        self.ask(|_| vec![Appended::Written; appends.len()])
    }

    fn claim_tokens<'a>(&'a self, _: &'a JobId, _: &'a str) -> Asked<'a, Vec<TokenChunk>> {
        self.ask(|_| Vec::new())
    }

    fn standings<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<Standing>> {
        self.ask(move |kept| {
            let Kept { journals, suspects, registered_until, records, .. } = kept;
            let now = Instant::now();
            let lives = |other: &String| {
                other == worker || registered_until.get(other).is_none_or(|until| *until > now)
            };
            let standing = |id: &JobId| {
                let (live, dead): (Vec<&String>, Vec<&String>) = journals
                    .iter()
                    .filter_map(|(other, jobs)| jobs.contains(id).then_some(other))
                    .partition(|other| lives(other));
                let suspected = suspects.entry(id.clone()).or_default();
                suspected.extend(dead.into_iter().cloned());
                match (records.contains_key(id), live.is_empty()) {
                    (true, _) => Standing::Answered,
                    (false, false) => Standing::Held,
                    (false, true) => Standing::Free { deaths: suspected.len() as u32 },
                }
            };
            ids.iter().map(standing).collect()
        })
    }
}
