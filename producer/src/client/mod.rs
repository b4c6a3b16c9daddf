//! A fleet's client: submits jobs, waits for their outcomes, and looks at what the fleet is doing.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use forebay_fabric::Config;
//! # use forebay_producer::{Client, Job, Lane};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load(None)?.config;
//! let client = Client::connect(&config)?;
//! let job = Job::embed("all-minilm-l6-v2".parse()?, vec!["a text".to_owned()]);
//! let id = client.submit(job, Lane::Interactive).await?;
//! let outcome = client.wait(&id, Duration::from_secs(30)).await?;
//! println!("{}", outcome.state);
//! # Ok(())
//! # }
//! ```

mod dead;
mod inspect;
mod submit;
mod wait;
mod waiter;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use forebay_fabric::{
    Broker, Config, Store,
    broker::{BrokerError, PublishError},
    management::ManagementError,
    store::StoreError,
};
use forebay_schemas::{JobId, topology::Topology};
use tokio::sync::{Mutex, OnceCell, watch};

pub use dead::{DeadLetter, DeadLetters, Kept, LetterFilter, LetterInfo, ReplayError};
pub use inspect::{ModelInfo, QueueInfo, Queues};
pub use submit::{HeldUp, SubmitError, WhenFull};
pub use wait::WaitError;

use submit::Routes;
use waiter::Waiter;

/// The fleet did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker did not.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not take a message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Redis did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The management API did not.
    #[error(transparent)]
    Management(#[from] ManagementError),
}

/// A client of one fleet. Clones share its connections, which are made when they are first needed and
/// come back when they are lost; what a full queue means to each is its own.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    when_full: WhenFull,
}

struct Inner {
    config: Config,
    store: Store,
    broker: OnceCell<Broker>,
    routes: Mutex<Routes>,
    waiter: OnceLock<Waiter>,
    /// What submits wait for, as far as is known.
    held_up: watch::Sender<Option<HeldUp>>,
    /// The channel on which this client hears of results.
    channel: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("channel", &self.inner.channel).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the fleet that `config` describes. An error says that an address is wrong; whether
    /// somebody answers there shows when it is first needed.
    ///
    /// Call it, and all else, inside a Tokio runtime.
    pub fn connect(config: &Config) -> Result<Self, ClientError> {
        forebay_fabric::install_crypto();
        let inner = Inner {
            store: Store::new(config)?,
            config: config.clone(),
            broker: OnceCell::new(),
            routes: Mutex::default(),
            waiter: OnceLock::new(),
            held_up: watch::Sender::new(None),
            // As unguessable as a job's id, and no other client's.
            channel: format!("forebay:notify:{}", JobId::random()),
        };
        Ok(Self { inner: Arc::new(inner), when_full: WhenFull::default() })
    }

    /// The same client, which does this when a queue is full or the broker takes no publishes.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// What submits of this client and its clones wait for, now and as it changes; `None` once one
    /// got through. Only those with [`WhenFull::Wait`] wait.
    pub fn held_up(&self) -> watch::Receiver<Option<HeldUp>> {
        self.inner.held_up.subscribe()
    }

    /// The broker, connected before this comes back the first time.
    async fn broker(&self) -> Result<&Broker, BrokerError> {
        let connect = || async {
            let config = &self.inner.config;
            let topology = Topology::new(config.models.keys(), &config.queues);
            let broker = Broker::start(config, "forebay client", topology)?;
            broker.ready_within(self.connect_timeout()).await?;
            Ok(broker)
        };
        self.inner.broker.get_or_try_init(connect).await
    }

    fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.inner.config.broker.connect_timeout_ms)
    }

    fn waiter(&self) -> &Waiter {
        let start = || Waiter::start(&self.inner.store, &self.inner.channel);
        self.inner.waiter.get_or_init(start)
    }

    /// Closes the connection to the broker. Whatever is still being submitted fails.
    pub async fn close(&self) {
        if let Some(broker) = self.inner.broker.get() {
            broker.close().await;
        }
    }
}
