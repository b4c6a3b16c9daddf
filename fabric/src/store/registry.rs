//! The worker registry: the workers that are alive, by their heartbeats.
//!
//! Each worker has a record that expires, and an entry in an index, so that no reader has to scan all
//! keys. Entries are dated by Redis' own clock: those of the hosts differ.

use forebay_schemas::{
    WorkerRecord,
    names::{WORKER_INDEX, worker_key},
    worker::HEARTBEAT_TTL_MS,
};
use redis::pipe;

use super::{connection::Store, error::StoreError, results::KEYS_MAX};

/// The most workers that are listed: those with the latest heartbeats.
const WORKERS_MAX: isize = 10_000;

/// The workers that have a record.
#[derive(Debug, Default)]
pub struct Registered {
    /// Those whose record was read, ordered by id.
    pub workers: Vec<WorkerRecord>,
    /// The ids of those whose record can't be read: workers of another version, which are alive all the same.
    pub unreadable: Vec<String>,
}

impl Store {
    /// Writes a worker's heartbeat: its record, which expires [`HEARTBEAT_TTL_MS`] later unless written again.
    pub async fn heartbeat(&self, record: &WorkerRecord) -> Result<(), StoreError> {
        let key = worker_key(&record.id);
        let json = serde_json::to_string(record)?;
        let now_ms = self.server_now_ms().await?;
        let mut commands = pipe();
        commands.cmd("SET").arg(&key).arg(&json).arg("PX").arg(HEARTBEAT_TTL_MS).ignore();
        commands.zadd(WORKER_INDEX, &record.id, now_ms).ignore();
        // The living remove the entries of the dead. Once no worker is alive, the index expires.
        let expired_ms = now_ms.saturating_sub(HEARTBEAT_TTL_MS);
        commands.zrembyscore(WORKER_INDEX, "-inf", expired_ms).ignore();
        commands.cmd("PEXPIRE").arg(WORKER_INDEX).arg(HEARTBEAT_TTL_MS).ignore();
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// Removes a worker's record, on its clean exit.
    pub async fn remove_worker(&self, id: &str) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.del(worker_key(id)).ignore().zrem(WORKER_INDEX, id).ignore();
        self.run(async |connection| commands.query_async(connection).await).await
    }

    /// The workers that are alive, ordered by id, as far as their records can be read.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        Ok(self.registered().await?.workers)
    }

    /// The workers that are alive, also those whose records can't be read.
    pub async fn registered(&self) -> Result<Registered, StoreError> {
        let ids: Vec<String> = self
            .run(async |connection| {
                let mut newest = redis::cmd("ZREVRANGE");
                newest.arg(WORKER_INDEX).arg(0).arg(WORKERS_MAX - 1).query_async(connection).await
            })
            .await?;
        let mut registered = Registered::default();
        for ids in ids.chunks(KEYS_MAX) {
            let keys: Vec<String> = ids.iter().map(|id| worker_key(id)).collect();
            // An entry may outlive its worker a little: only workers with a record are alive.
            let found: Vec<Option<Vec<u8>>> = self
                .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
                .await?;
            for (id, json) in ids.iter().zip(found) {
                match json.map(|json| serde_json::from_slice::<WorkerRecord>(&json)) {
                    Some(Ok(record)) => registered.workers.push(record),
                    Some(Err(_)) => registered.unreadable.push(id.clone()),
                    None => {}
                }
            }
        }
        registered.workers.sort_by(|one, other| one.id.cmp(&other.id));
        registered.unreadable.sort_unstable();
        Ok(registered)
    }

    /// The time by Redis' clock, in Unix milliseconds.
    async fn server_now_ms(&self) -> Result<u64, StoreError> {
        let (seconds, micros): (u64, u64) =
            self.run(async |connection| redis::cmd("TIME").query_async(connection).await).await?;
        Ok(seconds * 1_000 + micros / 1_000)
    }
}
