//! A store for the simulation: it can be away, and it can carry out a command and lose its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use forebay_fabric::{
    rng,
    store::{Asked, ResultRecord, ResultStore, StoreError, Written},
};
use forebay_schemas::JobId;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::life::Life;

#[derive(Debug, Default)]
pub struct Kept {
    pub records: BTreeMap<JobId, Vec<u8>>,
    pub cancelled: BTreeSet<JobId>,
    journals: BTreeMap<String, BTreeSet<JobId>>,
    suspects: BTreeMap<JobId, BTreeSet<String>>,
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

    fn present<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        self.ask(|kept| ids.iter().map(|id| kept.records.contains_key(id)).collect())
    }

    fn write_journal<'a>(&'a self, worker: &'a str, jobs: &'a [&'a JobId]) -> Asked<'a, ()> {
        self.ask(|kept| {
            let jobs = jobs.iter().map(|&id| id.clone()).collect();
            kept.journals.insert(worker.to_owned(), jobs);
        })
    }

    fn deaths<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<u32>> {
        self.ask(move |kept| {
            let Kept { journals, suspects, .. } = kept;
            let count = |id: &JobId| {
                let others = journals.iter().filter(|(other, _)| *other != worker);
                let held = others.filter(|(_, jobs)| jobs.contains(id));
                let suspected = suspects.entry(id.clone()).or_default();
                suspected.extend(held.map(|(other, _)| other.clone()));
                suspected.len() as u32
            };
            ids.iter().map(count).collect()
        })
    }
}
