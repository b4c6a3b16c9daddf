//! [`Store`]: the pool of connections to Redis that all commands share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{Object, Pool as ConnectionPool, PoolError},
};
use redis::{RedisError, aio::MultiplexedConnection};
use tokio_util::sync::CancellationToken;

use super::{dial::Dialer, error::StoreError, metering::Metering};
use crate::{
    backoff::Backoff,
    config::{Config, SecretUrl, StoreConfig},
    telemetry::Health,
};

pub(super) const PROBE_KEY: &str = "forebay:probe";
/// About as long as a worker's record: a store that takes this takes heartbeats too.
const PROBE_VALUE: [u8; 1_024] = [b'.'; 1_024];
pub(super) const PROBE_TTL_S: u64 = 60;
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// A store that answers more slowly than this is not fit for new work.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes that come through more rarely than this do not show that writes came through between them.
const PROBES_APART_MAX: Duration = Duration::from_secs(3);
/// Pauses between attempts to reach a Redis that is not there yet.
const READY_RETRY_MIN: Duration = Duration::from_millis(50);
const READY_RETRY_MAX: Duration = Duration::from_secs(1);
const SLOW: &str = "Redis does not answer within a second";

/// A pool of connections to Redis. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) connections: ConnectionPool<Dialer>,
    pub(super) config: StoreConfig,
    pub(super) url: SecretUrl,
    pub(super) writable: Arc<Mutex<Writable>>,
    pub(super) metering: Arc<Metering>,
}

/// Since when the probes of this process have come through without a gap.
#[derive(Debug, Default)]
pub(super) struct Writable {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Writable {
    /// A probe came through `now`, or did not.
    pub(super) fn probed(&mut self, came_through: bool, now: Instant) {
        let since = self.time_at(now).and(self.since);
        *self = if came_through {
            Self { since: since.or(Some(now)), last: Some(now) }
        } else {
            Self::default()
        };
    }

    fn time_at(&self, now: Instant) -> Option<Duration> {
        let is_fresh = now.duration_since(self.last?) <= PROBES_APART_MAX;
        is_fresh.then_some(now.duration_since(self.since?))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares the connection pool; nothing is connected until the first command.
    pub fn new(config: &Config) -> Result<Self, StoreError> {
        let url = config.redis_url.clone();
        let timeout = Duration::from_millis(config.store.timeout_ms);
        let connections = ConnectionPool::builder(Dialer::new(config)?)
            .max_size(config.store.connections_max)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| StoreError::Address { url: url.to_string(), reason: e.to_string() })?;
        let writable = Arc::default();
        let metering = Arc::new(Metering::of(config));
        Ok(Self { connections, config: config.store.clone(), url, writable, metering })
    }

    /// Waits until Redis answers. A refused login, which waiting does not mend, is returned at once; what else Redis
    /// says, such as that it is full, may pass and is not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(READY_RETRY_MIN, READY_RETRY_MAX);
        loop {
            match self.probe().await {
                Err(error) if error.is_final() => return Err(error),
                Ok(()) | Err(StoreError::Command { .. }) => return Ok(()),
                Err(_) => tokio::time::sleep(backoff.next_pause()).await,
            }
        }
    }

    /// Whether Redis takes a write: a server that is full, or was demoted, still answers reads.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.run(async |connection| {
            let mut set = redis::cmd("SET");
            set.arg(PROBE_KEY)
                .arg(&PROBE_VALUE[..])
                .arg("EX")
                .arg(PROBE_TTL_S)
                .query_async(connection)
                .await
        })
        .await
    }

    /// Sets the condition `store` of `health` every second to whether Redis takes writes, until `stop`.
    pub fn report_health(&self, health: Health, stop: CancellationToken) {
        let store = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(HEALTH_EVERY);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                let answer = tokio::time::timeout(HEALTH_TIMEOUT, store.probe()).await;
                store.writable().probed(matches!(answer, Ok(Ok(()))), Instant::now());
                let state = answer.map_or_else(
                    |_| Err(SLOW.to_owned()),
                    |answer| answer.map_err(|error| error.to_string()),
                );
                health.set("store", state);
            }
        });
    }

    /// For how long this process's probes ([`Self::report_health`]) have come through without a gap; `None` while they
    /// do not, and before the first. Where it is shorter than a record's time to live, a worker without a record may be
    /// one that could not write it.
    pub fn writable_for(&self) -> Option<Duration> {
        self.writable().time_at(Instant::now())
    }

    fn writable(&self) -> std::sync::MutexGuard<'_, Writable> {
        self.writable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<Object<Dialer>, StoreError> {
        // Connecting is rare and its future large: boxed, it does not enlarge every command's future.
        Box::pin(self.connections.get()).await.map_err(|error| {
            let url = self.url.to_string();
            match error {
                PoolError::Timeout(_) => {
                    StoreError::Unreachable { url, reason: "no connection in time".to_owned() }
                }
                PoolError::Backend(error) => error,
                other => StoreError::Unreachable { url, reason: other.to_string() },
            }
        })
    }

    /// Runs commands on a pooled connection. A connection that failed is not used again: a demoted primary answers
    /// READONLY for ever, and after a time-out the reply is still to come.
    pub(crate) async fn run<T>(
        &self,
        commands: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection().await?;
        let result = connection.run(commands).await;
        if result.is_err() {
            drop(Object::take(connection));
        }
        result.map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, error: RedisError) -> StoreError {
        StoreError::of(error, &self.url)
            .unwrap_or_else(|source| StoreError::Command { url: self.url.to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_through_for_as_long_as_every_probe_did() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut writable = Writable::default();
        assert_eq!(writable.time_at(start), None, "unknown is not zero");
        for s in 0..5 {
            writable.probed(true, at(s));
        }
        assert_eq!(writable.time_at(at(5)), Some(Duration::from_secs(5)));
        assert_eq!(writable.time_at(at(9)), None, "nothing was probed since");
        writable.probed(true, at(9));
        assert_eq!(writable.time_at(at(9)), Some(Duration::ZERO), "there was a gap");
        writable.probed(false, at(10));
        assert_eq!(writable.time_at(at(10)), None);
        writable.probed(true, at(11));
        assert_eq!(writable.time_at(at(12)), Some(Duration::from_secs(1)));
    }
}
