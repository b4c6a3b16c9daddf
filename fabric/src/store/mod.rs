//! Redis: results, cancel requests, the worker registry, the fleet's status, and the channels that
//! wake waiters.
//!
//! Every command has a time-out, after which its outcome is unknown; all that is written here may
//! therefore be written again.

mod journal;
mod lease;
mod notices;
mod registry;
mod result_store;
mod results;
mod retract;
mod status;

use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use forebay_schemas::names::STATUS_KEY;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisError,
    TlsCertificates,
};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, SecretUrl, StoreConfig},
    telemetry::Health,
    tls::{self, Tls, TlsError},
};

pub use lease::Lease;
pub use notices::Notices;
pub use result_store::{Asked, ResultStore};
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
    /// It shows a certificate that is not accepted.
    #[error(
        "Redis at {url} is not trusted: {reason}; its certificate has to come from an authority of the system or of tls.ca_file, be valid today, and name the host in redis_url"
    )]
    Untrusted {
        /// The address, password hidden.
        url: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// A file of `[tls]` can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Redis refused or did not answer in time.
    #[error("Redis at {url} failed: {source}")]
    Command {
        /// The address, password hidden.
        url: String,
        /// What it said.
        source: RedisError,
    },
    /// Too few replicas have what was written.
    #[error(
        "{replicas} replicas of Redis have the result, store.replicas_min asks for {replicas_min}; mend the replicas, or ask for fewer"
    )]
    Replicas {
        /// Replicas that have it.
        replicas: u32,
        /// Replicas that must have it.
        replicas_min: u32,
    },
    /// What an autoscaler told can't be read.
    #[error(
        "what the autoscaler told in {STATUS_KEY} can't be read: {0}; run autoscalers and this program at one version"
    )]
    Status(String),
    /// A record can't be written as JSON.
    #[error("can't write the record: {0}")]
    Record(#[from] serde_json::Error),
}

const PROBE_KEY: &str = "forebay:probe";
const PROBE_TTL_S: u64 = 60;
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// A store that answers more slowly than this is none to begin new work with.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
const SLOW: &str = "Redis does not answer within a second";

/// A pool of connections to Redis. Clones share it.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    config: StoreConfig,
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
        let tls = Tls::load(&config.tls)?;
        let client = client(&url, &tls).map_err(|e| address(e.to_string()))?;
        let manager = Manager::new_with_config(client.get_connection_info().clone(), connection)
            .map_err(|e| address(e.to_string()))?;
        let pool = Pool::builder(manager)
            .max_size(config.store.connections_max)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| address(e.to_string()))?;
        Ok(Self { pool, config: config.store.clone(), client, url })
    }

    /// Whether Redis takes a write: one that is full, or was demoted, still answers everything else.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.run(async |connection| {
            let mut set = redis::cmd("SET");
            set.arg(PROBE_KEY).arg(1).arg("EX").arg(PROBE_TTL_S).query_async(connection).await
        })
        .await
    }

    /// Keeps the condition `store` of `health` true to whether Redis takes writes, until `stop`.
    pub fn report_health(&self, health: Health, stop: CancellationToken) {
        let store = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(HEALTH_EVERY);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                let answer = tokio::time::timeout(HEALTH_TIMEOUT, store.probe()).await;
                let state = answer.map_or_else(
                    |_| Err(SLOW.to_owned()),
                    |answer| answer.map_err(|error| error.to_string()),
                );
                health.set("store", state);
            }
        });
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        // Connecting is rare and its future large: boxed, it weighs on no command.
        Box::pin(self.pool.get()).await.map_err(|error| {
            let url = self.url.to_string();
            match error {
                PoolError::Timeout(_) => {
                    StoreError::Unreachable { url, reason: "no connection in time".to_owned() }
                }
                PoolError::Backend(error) => self.not_connected(&error),
                other => StoreError::Unreachable { url, reason: other.to_string() },
            }
        })
    }

    fn not_connected(&self, error: &RedisError) -> StoreError {
        let url = self.url.to_string();
        match tls::distrust(error) {
            Some(reason) => StoreError::Untrusted { url, reason },
            None => StoreError::Unreachable { url, reason: error.to_string() },
        }
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

/// A client that connects as `[tls]` says; nothing of it holds for an address without TLS.
fn client(url: &SecretUrl, tls: &Tls) -> Result<Client, RedisError> {
    let info = url.expose().into_connection_info()?;
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if !encrypted || (tls.ca_pem().is_none() && tls.identity().is_none()) {
        return Client::open(info);
    }
    let client_tls = tls.identity().map(|identity| ClientTlsConfig {
        client_cert: identity.cert_pem.clone().into_bytes(),
        client_key: identity.key_pem.expose_secret().as_bytes().to_vec(),
    });
    // Roots that are given here replace the system's.
    let root_cert = tls.all_roots_pem().map(String::into_bytes);
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
}
