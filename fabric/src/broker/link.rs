//! The supervisor of a connection: it connects, declares the topology, watches, and reconnects.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_schemas::topology::Topology;
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties, Event,
    runtime::default_runtime,
    tcp::{AMQPUriTcpExt, RustlsConnector},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    address, declare,
    error::{BrokerError, is_of_channel, is_refused},
};
use crate::{
    backoff::Backoff,
    config::{BrokerConfig, Config, SecretUrl, TlsConfig},
    tls::{self, Tls},
};

/// The state of the connection.
#[derive(Clone)]
pub enum Link {
    /// There is no connection.
    Down {
        /// Why the last attempt failed; `None` while the first is under way.
        error: Option<Arc<BrokerError>>,
    },
    /// There is a connection, and the topology is declared.
    Up {
        /// The connection.
        connection: Arc<Connection>,
        /// The broker's backpressure: why it takes no publishes for now; `None` while it takes them.
        blocked: Option<String>,
    },
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down { error } => f.debug_struct("Down").field("error", error).finish(),
            Self::Up { blocked, .. } => f.debug_struct("Up").field("blocked", blocked).finish(),
        }
    }
}

/// The connection that is up now, or the next one; `None` once there will be none.
pub(super) async fn next_up(mut link: watch::Receiver<Link>) -> Option<Arc<Connection>> {
    match &*link.wait_for(|link| matches!(link, Link::Up { .. })).await.ok()? {
        Link::Up { connection, .. } => Some(connection.clone()),
        Link::Down { .. } => None,
    }
}

/// The topology that is declared on each new connection. It may be replaced while a connection is up.
pub(super) type Declared = Arc<Mutex<Topology>>;

/// A connection to make: its address, its login, and the topology to declare.
#[derive(Clone)]
pub(super) struct Plan {
    uri: AMQPUri,
    url: SecretUrl,
    tls: TlsConfig,
    name: String,
    topology: Declared,
    config: BrokerConfig,
    stop: CancellationToken,
}

struct Supervisor {
    plan: Plan,
    link: watch::Sender<Link>,
}

const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Events announce a lost connection; this check finds one whose event was missed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

impl Plan {
    /// A plan that ends, and closes its connections, when `stop` is cancelled.
    pub(super) fn new(
        config: &Config,
        name: &str,
        topology: Declared,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let url = config.amqp_url.clone();
        let mut uri = address::parse(&url)
            .map_err(|reason| BrokerError::Address { url: url.to_string(), reason })?;
        uri.query.heartbeat.get_or_insert(config.broker.heartbeat_s);
        Tls::load(&config.tls)?;
        let tls = config.tls.clone();
        let config = config.broker.clone();
        Ok(Self { uri, url, tls, name: name.to_owned(), topology, config, stop })
    }

    /// A plan for a second connection of the same service: it declares nothing, as the first one does.
    pub(super) fn beside(&self, what: &str) -> Self {
        let name = format!("{} ({what})", self.name);
        Self { name, topology: Declared::default(), ..self.clone() }
    }

    /// The encryption of the next connection, with the files of `[tls]` as they are now.
    fn connector(&self) -> Result<Option<RustlsConnector>, BrokerError> {
        if self.uri.scheme == AMQPScheme::AMQP {
            return Ok(None);
        }
        Ok(Some(Tls::load(&self.tls)?.client()?.into()))
    }

    /// Starts the supervisor.
    pub(super) fn supervise(self) -> watch::Receiver<Link> {
        let (link, watcher) = watch::channel(Link::Down { error: None });
        tokio::spawn(Supervisor { plan: self, link }.run());
        watcher
    }
}

impl Supervisor {
    async fn run(self) {
        let backoff_max = Duration::from_millis(self.plan.config.backoff_ms_max);
        let mut backoff = Backoff::new(BACKOFF_MIN, backoff_max);
        while !self.plan.stop.is_cancelled() {
            let error = match self.plan.stop.run_until_cancelled(self.connect()).await {
                None => return,
                Some(Ok(connection)) => {
                    backoff.reset();
                    tracing::info!(url = %self.plan.url, "connected to RabbitMQ");
                    metrics::counter!("forebay_broker_connects_total").increment(1);
                    match self.watch(Arc::new(connection)).await {
                        Some(error) => error,
                        None => return,
                    }
                }
                Some(Err(error)) => error,
            };
            let pause = backoff.next_pause();
            tracing::warn!(%error, again_in_ms = pause.as_millis() as u64, "no connection to RabbitMQ");
            self.link.send_replace(Link::Down { error: Some(Arc::new(error)) });
            self.plan.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    async fn connect(&self) -> Result<Connection, BrokerError> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.plan.name.clone().into());
        let attempt = async {
            let connect = open(self.plan.uri.clone(), properties, self.plan.connector()?);
            let connection = connect.await.map_err(|error| self.not_connected(error))?;
            let topology =
                self.plan.topology.lock().unwrap_or_else(PoisonError::into_inner).clone();
            declare::topology(&connection, &topology).await?;
            Ok(connection)
        };
        let after_ms = self.plan.config.connect_timeout_ms;
        tokio::time::timeout(Duration::from_millis(after_ms), attempt).await.unwrap_or_else(|_| {
            Err(BrokerError::Silent { url: self.plan.url.to_string(), after_ms })
        })
    }

    fn not_connected(&self, error: lapin::Error) -> BrokerError {
        let url = self.plan.url.to_string();
        if is_refused(&error) {
            return BrokerError::Refused { url, reason: error.to_string() };
        }
        if let Some(reason) = tls::distrust(&error) {
            return BrokerError::Untrusted { url, reason };
        }
        BrokerError::Unreachable { url, source: Arc::new(error) }
    }

    /// Publishes the connection as up until it is lost (and returns why) or the plan ends.
    async fn watch(&self, connection: Arc<Connection>) -> Option<BrokerError> {
        let mut events = Box::pin(connection.events_listener());
        let up = |blocked| Link::Up { connection: connection.clone(), blocked };
        self.link.send_replace(up(None));
        loop {
            tokio::select! {
                () = self.plan.stop.cancelled() => {
                    // Best effort: the socket is closed with the process anyway.
                    let _ = connection.close(200, "bye".into()).await;
                    return None;
                }
                event = events.next() => match event {
                    // The error of one channel, such as a message that is too large, is its user's.
                    Some(Event::Error(error)) if is_of_channel(&error) => {}
                    Some(Event::Error(error)) => return Some(self.not_connected(error)),
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "RabbitMQ takes no publishes for now");
                        self.link.send_replace(up(Some(reason)));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!("RabbitMQ takes publishes again");
                        self.link.send_replace(up(None));
                    }
                    Some(_) => {}
                    None => return Some(self.lost()),
                },
                () = tokio::time::sleep(CHECK_EVERY) => {
                    if !connection.status().connected() && !connection.status().blocked() {
                        return Some(self.lost());
                    }
                }
            }
        }
    }

    fn lost(&self) -> BrokerError {
        let error = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        self.not_connected(error)
    }
}

/// Connects. An encrypted link is encrypted by `connector`: the AMQP library's own needs the system's authorities also
/// where others are given.
async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    connector: Option<RustlsConnector>,
) -> lapin::Result<Connection> {
    let connect = async move |uri: AMQPUri, runtime| {
        let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri };
        let stream = plain.connect_async(&runtime).await?;
        match &connector {
            None => Ok(stream),
            Some(connector) => Ok(stream.into_rustls(connector, &plain.authority.host).await?),
        }
    };
    Connection::connector(uri, default_runtime()?, connect, properties).await
}
