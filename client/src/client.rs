//! The [`Client`] itself: its configuration and the connections that its clones share.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use forebay_fabric::{Broker, Config, Store, broker::BrokerError};
use forebay_schemas::{JobId, Lane, ModelId, TraceContext, topology::Topology};
use tokio::sync::{Mutex, OnceCell, watch};

use crate::{
    backpressure::{HeldUp, WhenFull},
    error::ClientError,
    routes::Routes,
    token_notices::TokenNotices,
    waiter::Waiter,
};

/// A client of one fleet.
///
/// Clones share its connections, which are made when they are first needed and re-established when they are lost.
/// [`Client::when_full`] and [`Client::in_trace`] belong to each clone alone.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    pub(crate) when_full: WhenFull,
    pub(crate) trace: Option<TraceContext>,
}

/// State that the clones of a client share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    broker: OnceCell<Broker>,
    /// A connection for questions to which a broker may answer by closing it.
    questions: OnceCell<Broker>,
    routes: Mutex<Routes>,
    waiter: OnceLock<Waiter>,
    token_notices: OnceLock<TokenNotices>,
    /// The cause for which submits wait at present.
    pub(crate) held_up: watch::Sender<Option<HeldUp>>,
    /// The Redis channel on which this client is notified of results.
    pub(crate) channel: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("channel", &self.inner.channel).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the fleet that `config` describes. Connects to nothing yet, so an error means a wrong address; a
    /// server that does not answer shows at the first operation that needs it.
    ///
    /// This and all other methods must be called inside a Tokio runtime.
    pub fn connect(config: &Config) -> Result<Self, ClientError> {
        forebay_fabric::install_crypto();
        let inner = Inner {
            store: Store::new(config)?,
            config: config.clone(),
            broker: OnceCell::new(),
            questions: OnceCell::new(),
            routes: Mutex::default(),
            waiter: OnceLock::new(),
            token_notices: OnceLock::new(),
            held_up: watch::Sender::new(None),
            // As unguessable as a job's id, and shared with no other client.
            channel: format!("forebay:notify:{}", JobId::random()),
        };
        Ok(Self { inner: Arc::new(inner), when_full: WhenFull::default(), trace: None })
    }

    /// Sets the behaviour of submits when a queue is full or the broker takes no publishes.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Makes the jobs that it submits part of a distributed trace: their messages carry the context in W3C's headers,
    /// and the worker's spans are below it. Clone the client for each context; clones share their connections.
    #[must_use]
    pub fn in_trace(mut self, context: Option<TraceContext>) -> Self {
        self.trace = context;
        self
    }

    /// The cause for which submits of this client and its clones wait, as it changes; `None` once one got through.
    /// Only submits with [`WhenFull::Wait`] wait.
    pub fn held_up(&self) -> watch::Receiver<Option<HeldUp>> {
        self.inner.held_up.subscribe()
    }

    /// The store that this client reads results from, for a program that has more to do there: its connections are
    /// shared.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Closes the connections to the broker. Submits that are still unconfirmed fail.
    pub async fn close(&self) {
        for broker in
            [&self.inner.broker, &self.inner.questions].into_iter().filter_map(OnceCell::get)
        {
            broker.close().await;
        }
    }

    /// The broker. The first call connects, and returns once that has succeeded.
    pub(crate) async fn broker(&self) -> Result<&Broker, BrokerError> {
        let connect = || async {
            let config = &self.inner.config;
            let topology = Topology::new(config.models.keys(), &config.queues);
            let broker = Broker::start(config, "forebay client", topology)?;
            broker.ready_within(self.connect_timeout()).await?;
            Ok(broker)
        };
        self.inner.broker.get_or_try_init(connect).await
    }

    /// The broker, connected at present: a lost connection is waited for as long as the configuration allows.
    pub(crate) async fn ready_broker(&self) -> Result<&Broker, BrokerError> {
        let broker = self.broker().await?;
        broker.ready_within(self.connect_timeout()).await?;
        Ok(broker)
    }

    /// The broker on a connection that nothing else needs, up at present, or not there. The first call connects.
    pub(crate) async fn questions(&self) -> Result<&Broker, BrokerError> {
        let connect = async || {
            Broker::start(&self.inner.config, "forebay client questions", Topology::default())
        };
        let broker = self.inner.questions.get_or_try_init(connect).await?;
        broker.ready_within(self.connect_timeout()).await?;
        Ok(broker)
    }

    /// The broker's reason for taking no publishes, if it takes none and has reported one.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.inner.broker.get()?.blocked()
    }

    fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.inner.config.broker.connect_timeout_ms)
    }

    /// The task that waits for results. The first wait starts it: who only submits has no use for notices. Whatever was
    /// written before it is subscribed, it finds by looking.
    pub(crate) fn waiter(&self) -> &Waiter {
        let start = || Waiter::start(&self.inner.store, &self.inner.channel);
        self.inner.waiter.get_or_init(start)
    }

    /// The subscription to notices of tokens. The first generation that is followed starts it.
    pub(crate) fn token_notices(&self) -> &TokenNotices {
        let start = || TokenNotices::start(&self.inner.store, &self.inner.channel);
        self.inner.token_notices.get_or_init(start)
    }

    /// Whether the model has queues: looked up once, then remembered.
    pub(crate) async fn has_queues(&self, model: &ModelId) -> Result<bool, BrokerError> {
        // Configured models have queues: this client's own connection declares them.
        if self.inner.config.models.contains_key(model) {
            return Ok(true);
        }
        let mut routes = self.inner.routes.lock().await;
        if let Some(has_queues) = routes.lookup(model) {
            return Ok(has_queues);
        }
        let depth = self.ready_broker().await?.queue_depth(&Lane::Batch.queue(model)).await?;
        routes.remember(model, depth.is_some());
        Ok(depth.is_some())
    }
}
