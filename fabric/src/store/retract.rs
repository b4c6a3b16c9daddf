//! Removing what was written of a job, so that it can be tried again.

use std::sync::LazyLock;

use forebay_schemas::{JobId, limits::RESULT_TTL_S_DEFAULT};
use redis::Script;

use super::{connection::Store, error::StoreError};

/// Returns how many seconds the record had left; nothing if it is a different one.
static RETRACT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
         local ttl = redis.call('TTL', KEYS[1])
         redis.call('DEL', KEYS[1])
         return ttl",
    )
});

impl Store {
    /// Removes a job's record if it still is `bytes`, and returns how many seconds it had left. `None` if
    /// the record is a different one by now, or gone: then nothing is removed.
    pub async fn retract_result(
        &self,
        id: &JobId,
        bytes: &[u8],
    ) -> Result<Option<u64>, StoreError> {
        let key = id.result_key();
        let left_s: Option<i64> = self
            .run(async |connection| RETRACT.key(&key).arg(bytes).invoke_async(connection).await)
            .await?;
        // A record in its last second has 0 left; one that was written without a time to live has -1.
        Ok(left_s.map(|s| u64::try_from(s).map_or(RESULT_TTL_S_DEFAULT, |s| s.max(1))))
    }

    /// Forgets which workers this job is suspected to have crashed, and the tokens that earlier attempts wrote, so that
    /// its attempts start over.
    pub async fn forget_suspicion(&self, id: &JobId) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        commands.del(id.suspect_key()).ignore().del(id.tokens_key()).ignore();
        self.run(async |connection| commands.query_async(connection).await).await
    }
}
