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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Redis;

    const LEASE_MS: u64 = 60_000;

    #[tokio::test]
    async fn one_that_is_held_is_renewed_by_its_holder_and_refused_to_others() {
        let mut redis = Redis::start().await;
        assert!(!redis.store.is_led().await.unwrap());
        let taken = redis.store.take_lease("one", LEASE_MS).await.unwrap();
        assert_eq!(taken.holder, "one");
        assert!(redis.store.is_led().await.unwrap());
        assert_eq!(redis.store.take_lease("two", LEASE_MS).await.unwrap(), taken);
        let longer = redis.store.take_lease("one", 10 * LEASE_MS).await.unwrap();
        assert_eq!(longer, taken, "renewed under its token");
        let left_ms: u64 = redis.ask(&["PTTL", LEASE_KEY]).await;
        assert!(left_ms > LEASE_MS, "{left_ms}");
    }

    #[tokio::test]
    async fn a_token_holds_until_another_one_leads_and_tokens_only_grow() {
        let mut redis = Redis::start().await;
        let first = redis.store.take_lease("one", LEASE_MS).await.unwrap();
        assert!(redis.store.holds_lease(first.token).await.unwrap());
        assert!(!redis.store.holds_lease(first.token - 1).await.unwrap());
        let () = redis.ask(&["DEL", LEASE_KEY]).await;
        assert!(!redis.store.holds_lease(first.token).await.unwrap(), "it has expired");
        let second = redis.store.take_lease("two", LEASE_MS).await.unwrap();
        assert!(second.token > first.token);
        assert!(!redis.store.holds_lease(first.token).await.unwrap(), "another one's");
        assert!(redis.store.holds_lease(second.token).await.unwrap());
        // Its clock may be set back, and the last token is the higher one.
        let ahead = (second.token + 1_000_000_000).to_string();
        let () = redis.ask(&["SET", TOKEN_KEY, &ahead]).await;
        let () = redis.ask(&["DEL", LEASE_KEY]).await;
        let third = redis.store.take_lease("one", LEASE_MS).await.unwrap();
        assert_eq!(third.token, second.token + 1_000_000_001);
        let () = redis.ask(&["FLUSHALL"]).await;
        let now_ms = crate::clock::now_ms();
        let lost = redis.store.take_lease("one", LEASE_MS).await.unwrap();
        assert!(lost.token >= now_ms, "the time, where Redis lost all that it had");
    }

    #[tokio::test]
    async fn a_lease_is_given_up_by_the_one_that_has_it_alone() {
        let mut redis = Redis::start().await;
        let first = redis.store.take_lease("one", LEASE_MS).await.unwrap();
        let () = redis.ask(&["DEL", LEASE_KEY]).await;
        let second = redis.store.take_lease("two", LEASE_MS).await.unwrap();
        redis.store.release_lease(first.token).await.unwrap();
        assert!(redis.store.holds_lease(second.token).await.unwrap(), "released by the one before");
        redis.store.release_lease(second.token).await.unwrap();
        assert!(!redis.store.is_led().await.unwrap());
    }
}
