//! Redis: results, cancel requests, the worker registry, and the channels that wake waiters.
//!
//! Every command has a time-out, after which its outcome is unknown; all that is written here may
//! therefore be written again.

mod notices;
mod registry;
mod results;
mod retract;

use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use redis::{AsyncConnectionConfig, Client, RedisError};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, SecretUrl},
    telemetry::Health,
};

pub use notices::Notices;
pub use results::{ResultRecord, Written};

/// Redis did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is wrong.
    #[error("redis_url {url} is not an address of Redis: {reason}; write redis://host:6379/0")]
    Address {
        /// The address, password hidden.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no connection.
    #[error("can't reach Redis at {url}: {reason}; check redis_url and that Redis runs")]
    Unreachable {
        /// The address, password hidden.
        url: String,
        /// Why.
        reason: String,
    },
    /// Redis refused or did not answer in time.
    #[error("Redis at {url} failed: {source}")]
    Command {
        /// The address, password hidden.
        url: String,
        /// What it said.
        source: RedisError,
    },
    /// A record can't be written as JSON.
    #[error("can't write the record: {0}")]
    Record(#[from] serde_json::Error),
}

const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// A pool of connections to Redis. Clones share it.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    client: Client,
    url: SecretUrl,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares the pool; nothing is connected until the first command.
    pub fn new(config: &Config) -> Result<Self, StoreError> {
        let url = config.redis_url.clone();
        let address = |reason: String| StoreError::Address { url: url.to_string(), reason };
        let timeout = Duration::from_millis(config.store.timeout_ms);
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let client = Client::open(url.expose()).map_err(|e| address(e.to_string()))?;
        let manager = Manager::new_with_config(url.expose(), connection)
            .map_err(|e| address(e.to_string()))?;
        let pool = Pool::builder(manager)
            .max_size(config.store.connections_max)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| address(e.to_string()))?;
        Ok(Self { pool, client, url })
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(async |connection| redis::cmd("PING").query_async::<()>(connection).await).await
    }

    /// Keeps the condition `store` of `health` true to whether Redis answers, until `stop`.
    pub fn report_health(&self, health: Health, stop: CancellationToken) {
        let store = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(HEALTH_EVERY);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                health.set("store", store.ping().await.map_err(|error| error.to_string()));
            }
        });
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        // Connecting is rare and its future large: boxed, it weighs on no command.
        Box::pin(self.pool.get()).await.map_err(|error| {
            let reason = match error {
                PoolError::Timeout(_) => "no connection in time".to_owned(),
                other => other.to_string(),
            };
            StoreError::Unreachable { url: self.url.to_string(), reason }
        })
    }

    /// Runs commands on a pooled connection. One that failed is not pooled again: a demoted primary
    /// answers READONLY for ever, and after a time-out the reply is still to come.
    async fn run<T>(
        &self,
        commands: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection().await?;
        match commands(&mut connection).await {
            Ok(value) => Ok(value),
            Err(source) => {
                drop(Connection::take(connection));
                Err(StoreError::Command { url: self.url.to_string(), source })
            }
        }
    }
}
