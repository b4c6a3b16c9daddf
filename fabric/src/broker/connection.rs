//! [`Broker`]: the connection that all commands share, and the one that publishes.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use forebay_schemas::topology::Topology;
use lapin::Connection;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    channel_pool::{self, ChannelPool},
    declare,
    error::BrokerError,
    link::{Declared, Link, Plan},
};
use crate::{
    config::{BrokerConfig, Config},
    telemetry::Health,
};

/// A connection to the broker that reconnects by itself. Clones share it; dropping the last one closes it.
#[derive(Clone)]
pub struct Broker {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: BrokerConfig,
    link: watch::Receiver<Link>,
    declared: Declared,
    /// Makes the connection that publishes.
    plan: Plan,
    publishing: OnceLock<Publishing>,
    /// One permit for each publish that waits for its confirmation.
    pub(super) confirms: Semaphore,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// The connection that publishes, and the channels on it.
pub(super) struct Publishing {
    pub(super) link: watch::Receiver<Link>,
    pub(super) channels: ChannelPool,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("link", &*self.inner.link.borrow()).finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts to connect as `name` (shown in the broker's list of connections) and to declare
    /// `topology`.
    pub fn start(config: &Config, name: &str, topology: Topology) -> Result<Self, BrokerError> {
        let stop = CancellationToken::new();
        let declared = Declared::new(Mutex::new(topology));
        let plan = Plan::new(config, name, declared.clone(), stop.clone())?;
        let config = config.broker.clone();
        Ok(Self {
            inner: Arc::new(Inner {
                link: plan.clone().supervise(),
                declared,
                plan: plan.beside("publishing"),
                publishing: OnceLock::new(),
                confirms: Semaphore::new(config.confirms_in_flight_max),
                config,
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
            }),
        })
    }

    /// Replaces the topology that is declared: now, if there is a connection, and on every later one. Queues and
    /// exchanges that are no longer in it are not deleted. If the broker refuses it for good, the former topology
    /// goes on being declared.
    pub async fn declare(&self, topology: Topology) -> Result<(), BrokerError> {
        let declared = || self.inner.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *declared(), topology.clone());
        let Ok(connection) = self.connection() else { return Ok(()) };
        let result = declare::topology(&connection, &topology).await;
        if result.as_ref().is_err_and(BrokerError::is_final) {
            *declared() = before;
        }
        result
    }

    /// Waits until the broker is connected and the topology is declared. An error that waiting does not
    /// mend (a queue with other arguments, a refused login) is returned at once.
    pub async fn ready(&self) -> Result<(), BrokerError> {
        let mut link = self.inner.link.clone();
        loop {
            match &*link.borrow_and_update() {
                Link::Up { .. } => return Ok(()),
                Link::Down { error: Some(error) } if error.is_final() => {
                    return Err((**error).clone());
                }
                Link::Down { .. } => {}
            }
            if link.changed().await.is_err() {
                return Err(BrokerError::Closed);
            }
        }
    }

    /// [`Broker::ready`] with a time-out: for commands, where a person waits.
    pub async fn ready_within(&self, timeout: Duration) -> Result<(), BrokerError> {
        match tokio::time::timeout(timeout, self.ready()).await {
            Ok(ready) => ready,
            Err(_) => Err(match &*self.inner.link.borrow() {
                Link::Down { error: Some(error) } => (**error).clone(),
                _ => BrokerError::Closed,
            }),
        }
    }

    /// The state of the connection, now and as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// Why the broker takes no publishes for now, if it has said so.
    pub fn blocked(&self) -> Option<String> {
        match &*self.inner.publishing.get()?.link.borrow() {
            Link::Up { blocked, .. } => blocked.clone(),
            Link::Down { .. } => None,
        }
    }

    /// Waits until the broker says that it takes no publishes, and why. It says so only after it was
    /// sent one.
    pub async fn until_blocked(&self) -> String {
        let mut link = self.publishing().link.clone();
        loop {
            if let Link::Up { blocked: Some(reason), .. } = &*link.borrow_and_update() {
                return reason.clone();
            }
            if link.changed().await.is_err() {
                // Closed: no state will follow.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The connection that publishes, opened by the first call.
    pub(super) fn publishing(&self) -> &Publishing {
        self.inner.publishing.get_or_init(|| {
            let link = self.inner.plan.clone().supervise();
            let channels = channel_pool::channel_pool(link.clone(), self.inner.config.channels_max);
            Publishing { link, channels }
        })
    }

    /// Keeps the condition `broker` of `health` in step with the connection's state.
    pub fn report_health(&self, health: Health) {
        let mut link = self.link();
        tokio::spawn(async move {
            loop {
                let state = match &*link.borrow_and_update() {
                    Link::Up { .. } => Some(Ok(())),
                    Link::Down { error: Some(error) } => Some(Err(error.to_string())),
                    // The first attempt is under way.
                    Link::Down { error: None } => None,
                };
                if let Some(state) = state {
                    health.set("broker", state);
                }
                if link.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// The connection that is up now.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, BrokerError> {
        match &*self.inner.link.borrow() {
            Link::Up { connection, .. } => Ok(connection.clone()),
            Link::Down { error: Some(error) } => Err((**error).clone()),
            Link::Down { error: None } => Err(BrokerError::Closed),
        }
    }

    /// Closes the connection. Deliveries that are not settled go back to their queues.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        let mut link = self.inner.link.clone();
        // The supervisor ends, and with it the sender; a broker that does not answer is not waited for.
        let closed = async { while link.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), closed).await;
    }
}
