//! RabbitMQ: one supervised connection that comes back for ever, and what is done on it.
//!
//! [`Broker::start`] returns at once; a task connects, declares the topology, and does both again
//! whenever the connection is lost. Publishing and subscribing wait for the connection that is there
//! next. Publishing has a connection of its own, made with the first message: a broker that wants
//! memory stops reading from connections that publish, and acknowledgements must go through then.
//! `deadpool` keeps the publishing channels.

mod browse;
mod channels;
mod declare;
mod delivery;
mod error;
mod feed;
mod link;
mod publish;
mod queues;
mod republish;
mod subscribe;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use forebay_schemas::topology::Topology;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::{BrokerConfig, Config},
    telemetry::Health,
};

use link::{Declared, Plan};

pub use browse::{Browse, BrowsedMessage};
pub use delivery::{Acker, Delivery, Settlement};
pub use error::{BrokerError, PublishError};
pub use link::Link;
pub use publish::{HeaderValue, Headers, Message, Properties, Publisher};
pub use queues::QueueDepth;
pub use republish::for_republish;
pub use subscribe::{JobSource, Subscription};

/// A connection to the broker that comes back. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    config: BrokerConfig,
    link: watch::Receiver<Link>,
    declared: Declared,
    /// How the connection that publishes is made.
    plan: Plan,
    publishing: OnceLock<Publishing>,
    /// One permit a publish that waits for its confirmation.
    confirms: Semaphore,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// The connection that publishes, and the channels on it.
struct Publishing {
    link: watch::Receiver<Link>,
    channels: channels::Pool,
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

    /// Declares this in place of what was declared so far: now, if there is a connection, and on each one to come. What
    /// stood before and is not in it stays. What the broker refuses for good is not tried again: then what was declared
    /// so far goes on to be.
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

    /// Waits until the broker is connected and the topology stands. An error that waiting does not
    /// mend (a queue with other arguments, a refused login) comes back at once.
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

    /// [`Broker::ready`], but not for ever: for commands, where somebody waits.
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
                // Closed: nobody will say anything any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn publishing(&self) -> &Publishing {
        self.inner.publishing.get_or_init(|| {
            let link = self.inner.plan.clone().supervise();
            let channels = channels::pool(link.clone(), self.inner.config.channels_max);
            Publishing { link, channels }
        })
    }

    /// Keeps the condition `broker` of `health` true to the connection's state.
    pub fn report_health(&self, health: Health) {
        let mut link = self.link();
        tokio::spawn(async move {
            loop {
                let state = match &*link.borrow_and_update() {
                    Link::Up { .. } => Ok(()),
                    Link::Down { error: None } => Err("connecting".to_owned()),
                    Link::Down { error: Some(error) } => Err(error.to_string()),
                };
                health.set("broker", state);
                if link.changed().await.is_err() {
                    return;
                }
            }
        });
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
