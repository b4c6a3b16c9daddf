//! The workers' in-flight journals, and crash attribution: which jobs were on the device of a worker that died.
//!
//! A worker writes here which jobs its device is about to have, before it has them. When it dies, all that it had
//! prefetched comes back, and the next worker that gets one of these messages reads the journals: only a job that the
//! dead worker's journal names can have killed it. Each death is recorded under the job, once, however often the
//! journal is read.
//!
//! A death is a fact: the worker's record is gone from a registry that its workers could have written, or its launcher
//! reported its end ([`Store::worker_ended`]). A worker that lost its link to the broker is alive, and has its jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use forebay_schemas::{
    JobId,
    names::{COMPUTING_INDEX, WORKER_INDEX, computing_key, worker_key},
    worker::HEARTBEAT_TTL_MS,
};
use redis::{Pipeline, pipe};

use super::{Store, StoreError, results::KEYS_MAX};
use crate::clock;

/// How long a journal is worth reading: the jobs that it names wait in a queue until a worker comes.
const JOURNAL_TTL_S: i64 = 86_400;
/// The most workers whose journals are read.
const WORKERS_MAX: isize = 10_000;

/// The standing of a job whose message was delivered or tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has its record.
    Answered,
    /// It is in the journal of a worker that lives, or that may live.
    Held,
    /// No worker that lives has it in its journal.
    Free {
        /// How many workers died while they had it in their journal.
        deaths: u32,
    },
}

/// A worker's journal as it is in the store.
#[derive(Debug, PartialEq, Eq)]
struct Journal {
    /// When the worker started: it may start again under its name, and dies once each time.
    started_at_ms: u64,
    jobs: BTreeSet<JobId>,
}

impl Journal {
    /// The name of this worker's death.
    fn death_of(&self, worker: &str) -> String {
        format!("{worker}@{}", self.started_at_ms)
    }
}

/// A journal as JSON: `{"<started_at_ms>": [job ids]}`. Earlier workers wrote a list for each batch, under the batch's
/// number, or one under 0. A reader joins the lists, so workers of all kinds read each other's journals.
fn encode(started_at_ms: u64, jobs: &[JobId]) -> Result<String, serde_json::Error> {
    serde_json::to_string(&BTreeMap::from([(started_at_ms, jobs)]))
}

fn decode(json: &str) -> Option<Journal> {
    let lists: BTreeMap<u64, Vec<JobId>> = serde_json::from_str(json).ok()?;
    let started_at_ms = *lists.keys().next()?;
    Some(Journal { started_at_ms, jobs: lists.into_values().flatten().collect() })
}

/// The workers whose journals name a job.
#[derive(Debug, Default)]
struct Holders {
    /// Whether one of them lives, or may live.
    live: bool,
    /// The deaths of those that died.
    deaths: Vec<String>,
}

impl Store {
    /// Writes the jobs that `worker`, which started then, is about to compute, over those that were written before.
    /// Without any, the journal is removed.
    pub async fn write_journal(
        &self,
        worker: &str,
        started_at_ms: u64,
        jobs: &[JobId],
    ) -> Result<(), StoreError> {
        let key = computing_key(worker);
        let mut commands = pipe();
        if jobs.is_empty() {
            commands.del(&key).ignore().zrem(COMPUTING_INDEX, worker).ignore();
        } else {
            let json = encode(started_at_ms, jobs)?;
            commands.zadd(COMPUTING_INDEX, worker, clock::now_ms()).ignore();
            commands.expire(COMPUTING_INDEX, JOURNAL_TTL_S).ignore();
            commands.cmd("SET").arg(&key).arg(&json).arg("EX").arg(JOURNAL_TTL_S).ignore();
        }
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// Crash attribution: the standing of each of these jobs, for `worker`, which lives and asks.
    ///
    /// A missing record says that a worker died only if records can be written: until this process's own writes have
    /// come through for as long as a record lives, a worker without one may live.
    pub async fn standings(
        &self,
        worker: &str,
        ids: &[JobId],
    ) -> Result<Vec<Standing>, StoreError> {
        let holders = self.holders(worker, ids).await?;
        let none = Holders::default();
        let mut standings = Vec::with_capacity(ids.len());
        for ids in ids.chunks(KEYS_MAX) {
            // The records are looked up after the journals: a job leaves its journal before it has its record.
            let mut commands = pipe();
            for id in ids {
                add_deaths(&mut commands, id, &holders.get(id).unwrap_or(&none).deaths);
                commands.scard(id.suspect_key()).exists(id.result_key());
            }
            let found: Vec<u32> =
                self.run(async |connection| commands.query_async(connection).await).await?;
            for (id, found) in ids.iter().zip(found.chunks_exact(2)) {
                standings.push(match (found[1] > 0, holders.get(id)) {
                    (true, _) => Standing::Answered,
                    (false, Some(Holders { live: true, .. })) => Standing::Held,
                    (false, _) => Standing::Free { deaths: found[0] },
                });
            }
        }
        Ok(standings)
    }

    /// Counts the death of a worker of which its launcher reports that it has ended: the jobs in its journal were on
    /// its device. Its record goes with its journal, so that no job waits until it expires. Repeated, it changes
    /// nothing.
    pub async fn worker_ended(&self, worker: &str) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.del(worker_key(worker)).ignore().zrem(WORKER_INDEX, worker).ignore();
        self.count_journal(worker, commands).await
    }

    /// Counts the death of an earlier worker of this name, which one that starts takes over. Its journal is removed.
    pub async fn name_taken_over(&self, worker: &str) -> Result<(), StoreError> {
        self.count_journal(worker, pipe()).await
    }

    /// Counts a worker's death for each job in its journal and removes the journal, all at once with `commands`.
    async fn count_journal(&self, worker: &str, mut commands: Pipeline) -> Result<(), StoreError> {
        let key = computing_key(worker);
        let (json,): (Option<String>,) = self
            .run(async |connection| redis::cmd("MGET").arg(&key).query_async(connection).await)
            .await?;
        if let Some(journal) = json.and_then(|json| decode(&json)) {
            let death = [journal.death_of(worker)];
            for id in &journal.jobs {
                add_deaths(&mut commands, id, &death);
            }
        }
        commands.del(&key).ignore().zrem(COMPUTING_INDEX, worker).ignore();
        // All or nothing: where the deaths can't be written, the journal stays.
        commands.atomic();
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// For each of these jobs that a journal names, the workers whose journals do.
    async fn holders(
        &self,
        worker: &str,
        ids: &[JobId],
    ) -> Result<BTreeMap<JobId, Holders>, StoreError> {
        let asked: BTreeSet<&JobId> = ids.iter().collect();
        let ttl = Duration::from_millis(HEARTBEAT_TTL_MS);
        let is_readable = self.writable_for().is_some_and(|time| time >= ttl);
        let mut holders: BTreeMap<JobId, Holders> = BTreeMap::new();
        for (other, journal, is_registered) in self.journals().await? {
            let live = other == worker || is_registered || !is_readable;
            let death = journal.death_of(&other);
            for id in journal.jobs.into_iter().filter(|id| asked.contains(id)) {
                let holders = holders.entry(id).or_default();
                holders.live |= live;
                holders.deaths.extend((!live).then(|| death.clone()));
            }
        }
        Ok(holders)
    }

    /// The journals of all workers, and whether each worker has its record. A journal that can't be read is passed
    /// over.
    async fn journals(&self) -> Result<Vec<(String, Journal, bool)>, StoreError> {
        let expired_ms = clock::now_ms().saturating_sub(JOURNAL_TTL_S as u64 * 1_000);
        let mut commands = pipe();
        commands.zrembyscore(COMPUTING_INDEX, "-inf", expired_ms).ignore();
        commands.zrevrange(COMPUTING_INDEX, 0, WORKERS_MAX - 1);
        let (workers,): (Vec<String>,) =
            self.run(async |connection| commands.query_async(connection).await).await?;
        let mut journals = Vec::with_capacity(workers.len());
        for workers in workers.chunks(KEYS_MAX / 2) {
            // Both in one command, so at one moment: a worker that ends in good order removes its journal first.
            let keys = |worker: &String| [computing_key(worker), worker_key(worker)];
            let keys: Vec<String> = workers.iter().flat_map(keys).collect();
            let found: Vec<Option<Vec<u8>>> = self
                .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
                .await?;
            for (worker, found) in workers.iter().zip(found.chunks_exact(2)) {
                let json = found[0].as_deref().and_then(|json| std::str::from_utf8(json).ok());
                let journal = json.and_then(decode);
                journals
                    .extend(journal.map(|journal| (worker.clone(), journal, found[1].is_some())));
            }
        }
        Ok(journals)
    }
}

/// Records deaths under a job.
fn add_deaths(commands: &mut Pipeline, id: &JobId, deaths: &[String]) {
    if !deaths.is_empty() {
        let key = id.suspect_key();
        commands.sadd(&key, deaths).ignore().expire(&key, JOURNAL_TTL_S).ignore();
    }
}

#[cfg(test)]
mod tests;
