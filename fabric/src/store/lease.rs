//! Leader election among autoscalers: the holder of the lease leads, the others wait.
//!
//! A leader's fencing token is higher than those of all leaders before. The lease expires by Redis' clock; its holder
//! has to assume that it expires earlier, counted from before it asked.

use std::sync::LazyLock;

use forebay_schemas::names::{LEASE_KEY, TOKEN_KEY};
use redis::Script;

use super::{connection::Store, error::StoreError};

/// The lease: which autoscaler leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The leader's id.
    pub holder: String,
    /// The leader's fencing token.
    pub token: u64,
}

/// Takes the lease if it is free, renews it if it is held by this id, and returns its holder. A new token is at least
/// the current time, so that it is higher even after Redis lost all its data.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local held = redis.call('HMGET', KEYS[1], 'holder', 'token')
         if held[1] == ARGV[1] then
           redis.call('PEXPIRE', KEYS[1], ARGV[2])
           return held
         end
         if held[1] then return held end
         local time = redis.call('TIME')
         local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
         local token = math.max(now_ms, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
         local text = string.format('%.0f', token)
         redis.call('SET', KEYS[2], text)
         redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', text)
         redis.call('PEXPIRE', KEYS[1], ARGV[2])
         return {ARGV[1], text}",
    )
});

/// Ends the lease if it has this token.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('DEL', KEYS[1]) end",
    )
});

impl Store {
    /// Takes or renews the lease for `lease_ms`, as `id`, and returns the lease as it is then.
    pub async fn take_lease(&self, id: &str, lease_ms: u64) -> Result<Lease, StoreError> {
        let (holder, token): (String, u64) = self
            .run(async |connection| {
                let mut take = TAKE.key(LEASE_KEY);
                take.key(TOKEN_KEY).arg(id).arg(lease_ms).invoke_async(connection).await
            })
            .await?;
        Ok(Lease { holder, token })
    }

    /// Whether the lease with this token is the one that holds now.
    pub async fn holds_lease(&self, token: u64) -> Result<bool, StoreError> {
        let held: Option<u64> = self
            .run(async |connection| {
                redis::cmd("HGET").arg(LEASE_KEY).arg("token").query_async(connection).await
            })
            .await?;
        Ok(held == Some(token))
    }

    /// Whether any autoscaler holds the lease.
    pub async fn is_led(&self) -> Result<bool, StoreError> {
        self.run(async |connection| {
            redis::cmd("EXISTS").arg(LEASE_KEY).query_async(connection).await
        })
        .await
    }

    /// Gives the lease up, if it has this token.
    pub async fn release_lease(&self, token: u64) -> Result<(), StoreError> {
        self.run(async |connection| {
            RELEASE.key(LEASE_KEY).arg(token).invoke_async(connection).await
        })
        .await
    }
}
