//! Which jobs were being computed when a worker died.
//!
//! A worker notes what it is about to compute before it computes it. When it dies, all that it had
//! prefetched comes back, and whoever gets it reads the notes: only jobs that stand in one can have
//! killed their worker. Each such worker is put down under the job, once, however often it is seen.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::{
    JobId,
    names::{COMPUTING_INDEX, computing_key},
};
use redis::pipe;

use super::{Note, Store, StoreError, results::KEYS_MAX};
use crate::clock;

/// How long a note is worth reading: what it names waits in a queue until a worker comes.
const NOTE_TTL_S: i64 = 86_400;
/// The most workers whose notes are read.
const WORKERS_MAX: isize = 10_000;

impl Store {
    /// Writes what `worker` is about to compute, in place of what it wrote before.
    pub async fn note(&self, worker: &str, note: &Note) -> Result<(), StoreError> {
        let (key, json) = (computing_key(worker), serde_json::to_string(note)?);
        let mut commands = pipe();
        if note.is_empty() {
            commands.del(&key).ignore().zrem(COMPUTING_INDEX, worker).ignore();
        } else {
            commands.zadd(COMPUTING_INDEX, worker, clock::now_ms()).ignore();
            commands.expire(COMPUTING_INDEX, NOTE_TTL_S).ignore();
            commands.cmd("SET").arg(&key).arg(&json).arg("EX").arg(NOTE_TTL_S).ignore();
        }
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// For each of these jobs, how many workers died while they computed it.
    pub async fn deaths(&self, worker: &str, ids: &[JobId]) -> Result<Vec<u32>, StoreError> {
        let noted = self.noted(worker, ids).await?;
        let mut deaths = Vec::with_capacity(ids.len());
        for ids in ids.chunks(KEYS_MAX) {
            let mut commands = pipe();
            for id in ids {
                let key = id.suspect_key();
                if let Some(workers) = noted.get(id) {
                    commands.sadd(&key, workers).ignore().expire(&key, NOTE_TTL_S).ignore();
                }
                commands.scard(&key);
            }
            let found: Vec<u32> =
                self.run(async |connection| commands.query_async(connection).await).await?;
            deaths.extend(found);
        }
        Ok(deaths)
    }

    /// The other workers in whose notes these jobs stand.
    async fn noted(
        &self,
        worker: &str,
        ids: &[JobId],
    ) -> Result<BTreeMap<JobId, Vec<String>>, StoreError> {
        let asked: BTreeSet<&JobId> = ids.iter().collect();
        let mut noted: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        for (other, note) in self.notes(worker).await? {
            let ids: BTreeSet<JobId> = note.into_values().flatten().collect();
            for id in ids.into_iter().filter(|id| asked.contains(id)) {
                noted.entry(id).or_default().push(other.clone());
            }
        }
        Ok(noted)
    }

    /// The notes of all workers but one. A note that can't be read is passed over.
    async fn notes(&self, but: &str) -> Result<Vec<(String, Note)>, StoreError> {
        let expired_ms = clock::now_ms().saturating_sub(NOTE_TTL_S as u64 * 1_000);
        let mut commands = pipe();
        commands.zrembyscore(COMPUTING_INDEX, "-inf", expired_ms).ignore();
        commands.zrevrange(COMPUTING_INDEX, 0, WORKERS_MAX - 1);
        let (mut workers,): (Vec<String>,) =
            self.run(async |connection| commands.query_async(connection).await).await?;
        workers.retain(|worker| worker != but);
        let mut notes = Vec::with_capacity(workers.len());
        for workers in workers.chunks(KEYS_MAX) {
            let keys: Vec<String> = workers.iter().map(|worker| computing_key(worker)).collect();
            let found: Vec<Option<String>> = self
                .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
                .await?;
            for (worker, json) in workers.iter().zip(found) {
                let note = json.and_then(|json| serde_json::from_str(&json).ok());
                notes.extend(note.map(|note| (worker.clone(), note)));
            }
        }
        Ok(notes)
    }
}
