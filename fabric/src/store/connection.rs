//! [`Store`]: the pool of connections to Redis that all commands share.

use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool as ConnectionPool, PoolError, Runtime};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisError,
    TlsCertificates,
};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use crate::{
    config::{Config, SecretUrl, StoreConfig},
    telemetry::Health,
    tls::{self, Tls},
};

const PROBE_KEY: &str = "forebay:probe";
/// About as long as a worker's record: a store that takes this takes heartbeats too.
const PROBE_VALUE: [u8; 1_024] = [b'.'; 1_024];
const PROBE_TTL_S: u64 = 60;
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// A store that answers more slowly than this is not fit for new work.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
const SLOW: &str = "Redis does not answer within a second";

/// A pool of connections to Redis. Clones share it.
#[derive(Clone)]
pub struct Store {
    connections: ConnectionPool,
    pub(super) config: StoreConfig,
    /// Opens connections beside the pool, for subscriptions.
    pub(super) client: Client,
    pub(super) url: SecretUrl,
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
        let address = |reason: String| StoreError::Address { url: url.to_string(), reason };
        let timeout = Duration::from_millis(config.store.timeout_ms);
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let tls = Tls::load(&config.tls)?;
        let client = client(&url, &tls).map_err(|e| address(e.to_string()))?;
        let manager = Manager::new_with_config(client.get_connection_info().clone(), connection)
            .map_err(|e| address(e.to_string()))?;
        let connections = ConnectionPool::builder(manager)
            .max_size(config.store.connections_max)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| address(e.to_string()))?;
        Ok(Self { connections, config: config.store.clone(), client, url })
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
                let state = answer.map_or_else(
                    |_| Err(SLOW.to_owned()),
                    |answer| answer.map_err(|error| error.to_string()),
                );
                health.set("store", state);
            }
        });
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        // Connecting is rare and its future large: boxed, it does not enlarge every command's future.
        Box::pin(self.connections.get()).await.map_err(|error| {
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

    pub(super) fn not_connected(&self, error: &RedisError) -> StoreError {
        let url = self.url.to_string();
        match tls::distrust(error) {
            Some(reason) => StoreError::Untrusted { url, reason },
            None => StoreError::Unreachable { url, reason: error.to_string() },
        }
    }

    /// Runs commands on a pooled connection. A connection that failed does not return to the pool: a demoted
    /// primary answers READONLY for ever, and after a time-out the reply is still to come.
    pub(super) async fn run<T>(
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

/// A client that connects as `[tls]` says; for an address without TLS that table has no effect.
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
