//! The workers' in-flight journals, and crash attribution: which jobs were on the device of a worker that was lost.
//!
//! A worker writes here which jobs its device is about to have, before it has them. When it dies, all that it had
//! prefetched comes back, and the next worker that gets one of these messages reads the journals: only a job that the
//! dead worker's journal names can have killed it. Each such worker is recorded under the job, once, however often the
//! journal is read. A worker that lost its link to the broker counts as well: liveness is not checked.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::{
    JobId,
    names::{COMPUTING_INDEX, computing_key},
};
use redis::pipe;

use super::{Store, StoreError, results::KEYS_MAX};
use crate::clock;

/// How long a journal is worth reading: the jobs that it names wait in a queue until a worker comes.
const JOURNAL_TTL_S: i64 = 86_400;
/// The most workers whose journals are read.
const WORKERS_MAX: isize = 10_000;

/// A journal as JSON: `{"0": [job ids]}`. Earlier workers wrote a list for each batch, under the batch's number. A
/// reader joins the lists and ignores their keys, so workers of both kinds read each other's journals.
fn encode(jobs: &[&JobId]) -> Result<String, serde_json::Error> {
    serde_json::to_string(&BTreeMap::from([(0_u64, jobs)]))
}

fn decode(json: &str) -> Option<BTreeSet<JobId>> {
    let lists: BTreeMap<u64, Vec<JobId>> = serde_json::from_str(json).ok()?;
    Some(lists.into_values().flatten().collect())
}

impl Store {
    /// Writes the jobs that `worker`'s device holds, over those that were written before. Without any, the journal is
    /// removed.
    pub async fn write_journal(&self, worker: &str, jobs: &[&JobId]) -> Result<(), StoreError> {
        let key = computing_key(worker);
        let mut commands = pipe();
        if jobs.is_empty() {
            commands.del(&key).ignore().zrem(COMPUTING_INDEX, worker).ignore();
        } else {
            let json = encode(jobs)?;
            commands.zadd(COMPUTING_INDEX, worker, clock::now_ms()).ignore();
            commands.expire(COMPUTING_INDEX, JOURNAL_TTL_S).ignore();
            commands.cmd("SET").arg(&key).arg(&json).arg("EX").arg(JOURNAL_TTL_S).ignore();
        }
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// Crash attribution: for each of these jobs, how many workers other than `worker` had it in their journal, now or
    /// at an earlier call. Such a worker died or lost its link to the broker while its device held the job; whether it
    /// still lives is not checked.
    pub async fn deaths(&self, worker: &str, ids: &[JobId]) -> Result<Vec<u32>, StoreError> {
        let suspected = self.workers_that_held(worker, ids).await?;
        let mut deaths = Vec::with_capacity(ids.len());
        for ids in ids.chunks(KEYS_MAX) {
            let mut commands = pipe();
            for id in ids {
                let key = id.suspect_key();
                if let Some(workers) = suspected.get(id) {
                    commands.sadd(&key, workers).ignore().expire(&key, JOURNAL_TTL_S).ignore();
                }
                commands.scard(&key);
            }
            let found: Vec<u32> =
                self.run(async |connection| commands.query_async(connection).await).await?;
            deaths.extend(found);
        }
        Ok(deaths)
    }

    /// For each of these jobs, the workers other than `worker` whose journals name it.
    async fn workers_that_held(
        &self,
        worker: &str,
        ids: &[JobId],
    ) -> Result<BTreeMap<JobId, Vec<String>>, StoreError> {
        let asked: BTreeSet<&JobId> = ids.iter().collect();
        let mut held: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        for (other, jobs) in self.journals(worker).await? {
            for id in jobs.into_iter().filter(|id| asked.contains(id)) {
                held.entry(id).or_default().push(other.clone());
            }
        }
        Ok(held)
    }

    /// The journals of all workers but `except`. A journal that can't be read is passed over.
    async fn journals(&self, except: &str) -> Result<Vec<(String, BTreeSet<JobId>)>, StoreError> {
        let expired_ms = clock::now_ms().saturating_sub(JOURNAL_TTL_S as u64 * 1_000);
        let mut commands = pipe();
        commands.zrembyscore(COMPUTING_INDEX, "-inf", expired_ms).ignore();
        commands.zrevrange(COMPUTING_INDEX, 0, WORKERS_MAX - 1);
        let (mut workers,): (Vec<String>,) =
            self.run(async |connection| commands.query_async(connection).await).await?;
        workers.retain(|worker| worker != except);
        let mut journals = Vec::with_capacity(workers.len());
        for workers in workers.chunks(KEYS_MAX) {
            let keys: Vec<String> = workers.iter().map(|worker| computing_key(worker)).collect();
            let found: Vec<Option<String>> = self
                .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
                .await?;
            for (worker, json) in workers.iter().zip(found) {
                let jobs = json.and_then(|json| decode(&json));
                journals.extend(jobs.map(|jobs| (worker.clone(), jobs)));
            }
        }
        Ok(journals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        text.parse().unwrap()
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let json = encode(&[&id("a"), &id("b"), &id("a")]).unwrap();
        assert_eq!(json, r#"{"0":["a","b","a"]}"#);
        assert_eq!(decode(&json), Some(BTreeSet::from([id("a"), id("b")])));
    }

    #[test]
    fn a_journal_with_a_list_for_each_batch_is_read_too() {
        let json = r#"{"7":["a","b"],"8":["b","c"]}"#;
        assert_eq!(decode(json), Some(BTreeSet::from([id("a"), id("b"), id("c")])));
        assert_eq!(decode("[]"), None);
    }
}
