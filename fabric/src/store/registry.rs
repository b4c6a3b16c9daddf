//! The worker registry: who is alive, told by the workers themselves.

use std::collections::BTreeSet;

use forebay_schemas::{
    WorkerRecord,
    names::{WORKER_KEY_PREFIX, worker_key},
    worker::BEAT_TTL_MS,
};

use super::{Store, StoreError};

/// The most workers that are listed.
const WORKERS_MAX: usize = 10_000;

impl Store {
    /// Writes a worker's record, which is gone [`BEAT_TTL_MS`] later unless written again.
    pub async fn beat(&self, record: &WorkerRecord) -> Result<(), StoreError> {
        let (key, json) = (worker_key(&record.id), serde_json::to_string(record)?);
        self.run(async |connection| {
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(&json).arg("PX").arg(BEAT_TTL_MS).query_async(connection).await
        })
        .await
    }

    /// Removes a worker's record, on its clean exit.
    pub async fn remove_worker(&self, id: &str) -> Result<(), StoreError> {
        let key = worker_key(id);
        self.run(async |connection| redis::cmd("DEL").arg(&key).query_async(connection).await).await
    }

    /// The workers that are alive, ordered by id. A record that can't be read is passed over.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let keys = self.worker_keys().await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found: Vec<Option<String>> = self
            .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
            .await?;
        Ok(found
            .into_iter()
            .flatten()
            .filter_map(|json| serde_json::from_str(&json).ok())
            .collect())
    }

    async fn worker_keys(&self) -> Result<Vec<String>, StoreError> {
        let pattern = format!("{WORKER_KEY_PREFIX}*");
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let (next, found): (u64, Vec<String>) = self
                .run(async |connection| {
                    let mut scan = redis::cmd("SCAN");
                    scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
                    scan.query_async(connection).await
                })
                .await?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 || keys.len() >= WORKERS_MAX {
                return Ok(keys.into_iter().take(WORKERS_MAX).collect());
            }
        }
    }
}
