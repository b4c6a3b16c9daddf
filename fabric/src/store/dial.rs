//! Connections to Redis: opening one, and keeping those that are fit for use.

use std::{io, time::Duration};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisError,
    aio::{MultiplexedConnection, PubSub},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::error::StoreError;
use crate::{
    config::{Config, SecretUrl, TlsConfig},
    tls::{self, Tls},
};

/// Opens connections to one address, with the files of `[tls]` as they are at that moment.
pub(super) struct Dialer {
    info: ConnectionInfo,
    url: SecretUrl,
    tls: TlsConfig,
    response_timeout: Duration,
}

/// A connection of the pool.
pub(super) struct Pooled {
    pub(super) connection: MultiplexedConnection,
    /// Reads and writes the socket; it ends when the server closes the connection.
    driver: JoinHandle<()>,
    /// Whether commands were sent whose replies have not come: after a time-out they are still to come, and a server
    /// that refused one may refuse all, as a demoted primary does.
    unanswered: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Dialer {
    pub(super) fn new(config: &Config) -> Result<Self, StoreError> {
        let url = config.redis_url.clone();
        let info = url.expose().into_connection_info().and_then(supported);
        let info = info.map_err(|error| StoreError::Address {
            url: url.to_string(),
            reason: error.to_string(),
        })?;
        Tls::load(&config.tls)?;
        let response_timeout = Duration::from_millis(config.store.timeout_ms);
        Ok(Self { info, url, tls: config.tls.clone(), response_timeout })
    }

    /// Opens a connection for a subscription.
    pub(super) async fn subscribe(&self) -> Result<PubSub, StoreError> {
        let stream = self.stream().await?;
        let connected = PubSub::new(self.info.redis_settings(), stream).await;
        connected.map_err(|error| self.failed(error))
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, StoreError> {
        let lost = |error: io::Error| match tls::distrust(&error) {
            Some(reason) => StoreError::Untrusted { url: self.url.to_string(), reason },
            None => self.unreachable(error.to_string()),
        };
        match self.info.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => {
                let client = Tls::load(&self.tls)?.client()?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|error| self.unreachable(error.to_string()))?;
                let stream = tcp(host, *port).await.map_err(lost)?;
                let stream =
                    TlsConnector::from(client).connect(name, stream).await.map_err(lost)?;
                Ok(Box::new(stream))
            }
            ConnectionAddr::Unix(path) => {
                Ok(Box::new(UnixStream::connect(path).await.map_err(lost)?))
            }
            ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await.map_err(lost)?)),
            // `supported` has refused every other kind.
            _ => Err(self.unreachable("its kind of address is not known".to_owned())),
        }
    }

    fn unreachable(&self, reason: String) -> StoreError {
        StoreError::Unreachable { url: self.url.to_string(), reason }
    }

    fn failed(&self, error: RedisError) -> StoreError {
        StoreError::of(error, &self.url).unwrap_or_else(|error| self.unreachable(error.to_string()))
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Refuses addresses that would be understood differently here: an unchecked certificate, an unknown kind.
fn supported(info: ConnectionInfo) -> Result<ConnectionInfo, RedisError> {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            let reason = "`#insecure` would trust any server: remove it and set tls.ca_file";
            Err((ErrorKind::InvalidClientConfig, reason).into())
        }
        ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. } | ConnectionAddr::Unix(_) => {
            Ok(info)
        }
        _ => Err((ErrorKind::InvalidClientConfig, "its kind of address is not known").into()),
    }
}

impl Manager for Dialer {
    type Type = Pooled;
    type Error = StoreError;

    async fn create(&self) -> Result<Pooled, StoreError> {
        let stream = self.stream().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.response_timeout));
        let settings = self.info.redis_settings();
        let connected = MultiplexedConnection::new_with_config(settings, stream, config).await;
        let (connection, driver) = connected.map_err(|error| self.failed(error))?;
        Ok(Pooled { connection, driver: tokio::spawn(driver), unanswered: false })
    }

    /// Asks the server nothing: a command more for each command would halve the throughput.
    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<StoreError> {
        if pooled.driver.is_finished() {
            return Err(RecycleError::message("the server has closed it"));
        }
        if pooled.unanswered {
            return Err(RecycleError::message("its last command was not answered as it should"));
        }
        Ok(())
    }
}

impl Pooled {
    /// Runs commands. Unless they succeed, which they do not either when this future is dropped, the connection is not
    /// used again.
    pub(super) async fn run<T>(
        &mut self,
        commands: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        self.unanswered = true;
        let value = commands(&mut self.connection).await?;
        self.unanswered = false;
        Ok(value)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
