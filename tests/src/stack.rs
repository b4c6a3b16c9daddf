//! Servers for one test, and the services and commands that use them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;

use crate::binaries::{binary, checkout};
use crate::broker::{self, Vhost};
use crate::child_guard::{ChildGuard, Streams};
use crate::model::{DECODER, MODEL, SETTINGS, TINY, TinyModel, require_weights};
use crate::patience::{SOON, until};
use crate::pools::Pools;
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::service::Service;
use crate::store::Store;

/// How long a worker may take to stop: its grace period and a little more.
pub const GRACE: Duration = Duration::from_secs(60);

/// The body limit of the shared fleet: low, so that a body over it is quickly made.
pub const SHARED_BODY_BYTES_MAX: usize = 1 << 20;

static SHARED: OnceCell<SharedFleet> = OnceCell::const_new();

/// A virtual host and a Redis that belong together.
#[derive(Debug)]
pub struct Stack {
    // First: it reads which workers were launched in the store's folder, which goes with the store.
    pools: Option<Pools>,
    /// The broker's side.
    pub vhost: Vhost,
    /// The results' side.
    pub store: Store,
    relays: Option<Relays>,
    tiny: Option<TinyModel>,
}

/// The relays between the programs and the servers of a stack.
#[derive(Debug)]
pub struct Relays {
    /// On the way to the broker.
    pub broker: Relay,
    /// On the way to the store.
    pub store: Relay,
}

impl Stack {
    /// New and empty: no topology, no keys, no services.
    pub async fn start() -> Self {
        Self::on(broker::shared().await.vhost().await).await
    }

    /// New on a virtual host of any broker.
    pub async fn on(vhost: Vhost) -> Self {
        Self::of(vhost, Store::start().await)
    }

    /// New with any virtual host and any store.
    pub fn of(vhost: Vhost, store: Store) -> Self {
        let file = checkout().join("forebay.toml");
        let text = fs::read_to_string(&file).expect("forebay.toml");
        // Tests start their workers themselves.
        let launched = "launcher = \"process\"";
        let not = "launcher = \"none\"";
        assert!(text.contains(launched), "{} launches its workers in another way", file.display());
        let text = text.replace(launched, not) + SETTINGS;
        fs::write(store.folder().join("forebay.toml"), text).unwrap();
        Self { pools: None, vhost, store, relays: None, tiny: None }
    }

    /// Lets its programs reach its servers through relays. A test's own publishers and
    /// connections to the store don't.
    #[must_use]
    pub fn relayed(mut self) -> Self {
        let broker = self.vhost.amqp_port();
        let store = self.store.port();
        self.relays = Some(Relays { broker: Relay::to(broker), store: Relay::to(store) });
        self
    }

    /// Lets its workers run the tiny model: they start at once, and only what becomes of jobs
    /// matters.
    #[must_use]
    pub fn tiny(self) -> Self {
        self.tiny_of("bert")
    }

    /// Lets its workers run another of the engine's small models.
    #[must_use]
    pub fn tiny_of(mut self, kind: &str) -> Self {
        self.tiny = Some(TinyModel::prepare(self.store.folder(), kind));
        self
    }

    /// Has a tiny model that generates text beside the other one.
    #[must_use]
    pub fn with_decoder(self) -> Self {
        let stack = if self.tiny.is_some() { self } else { self.tiny() };
        stack.tiny.as_ref().expect("a tiny model").put_decoder_beside(stack.store.folder());
        stack
    }

    /// Takes the tiny model, and lets its autoscalers launch workers as these lines of `[models.tiny.pool]`
    /// say.
    #[must_use]
    pub fn pooled(self, pool: &str) -> Self {
        let mut stack = if self.tiny.is_some() { self } else { self.tiny() };
        stack.pools = Some(Pools::new(stack.store.folder()));
        stack.set_pool(pool);
        stack
    }

    /// Writes other lines of `[models.tiny.pool]` into the configuration.
    pub fn set_pool(&self, pool: &str) {
        let source = fs::canonicalize(self.tiny_model()).unwrap();
        let model = format!("[models.{TINY}]\nsource = \"folder:{}\"\n", source.display());
        self.write_config(&format!(
            "{}\n{model}[models.{TINY}.pool]\n{pool}\n",
            self.pools().settings()
        ));
    }

    /// Writes any configuration, whole or not at all.
    pub fn write_config(&self, text: &str) {
        let fresh = self.config().with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.config()).unwrap();
    }

    /// The workers that its autoscalers launched.
    pub fn pools(&self) -> &Pools {
        self.pools.as_ref().expect("a pooled stack")
    }

    /// The relays of a relayed stack.
    pub fn relays(&self) -> &Relays {
        self.relays.as_ref().expect("a relayed stack")
    }

    /// The model that its workers run.
    pub fn model(&self) -> &'static str {
        if self.tiny.is_some() { TINY } else { MODEL }
    }

    /// The folder in which its workers look for the tiny model.
    pub fn tiny_model(&self) -> PathBuf {
        self.tiny.as_ref().expect("a stack with the tiny model").models.join(TINY)
    }

    /// The queue of its model's batch lane.
    pub fn batch_queue(&self) -> String {
        format!("forebay.jobs.{}.batch", self.model())
    }

    /// New, with the topology declared: each program that connects does that.
    pub async fn declared() -> Self {
        let stack = Self::start().await;
        let listed = stack.forebay(&["queues"]).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        stack
    }

    /// A worker of the tests' model on one thread, ready.
    pub async fn worker(&self, overrides: &[(&str, &str)]) -> Service {
        self.starting_worker(overrides).ready().await
    }

    /// Starts a worker of the tests' model and does not wait until it is ready.
    pub fn starting_worker(&self, overrides: &[(&str, &str)]) -> Service {
        if self.tiny.is_none() {
            require_weights();
        }
        self.starting_worker_of(self.model(), overrides)
    }

    /// Starts a worker of the decoder that a stack has beside its model, and does not wait until it is ready.
    pub fn starting_decoder(&self, overrides: &[(&str, &str)]) -> Service {
        self.starting_worker_of(DECODER, overrides)
    }

    fn starting_worker_of(&self, model: &str, overrides: &[(&str, &str)]) -> Service {
        let mut command = self.program("forebay-worker", overrides);
        // The reference is float32, whatever type this machine's processor would do best in.
        command.args(["--model", model, "--threads", "1", "--dtype", "f32"]);
        Service::start("forebay-worker", command, self.store.folder())
    }

    /// An autoscaler, ready.
    pub async fn autoscaler(&self, overrides: &[(&str, &str)]) -> Service {
        self.starting_autoscaler(overrides).ready().await
    }

    /// Starts an autoscaler and does not wait until it is ready.
    pub fn starting_autoscaler(&self, overrides: &[(&str, &str)]) -> Service {
        let command = self.program("forebay-autoscaler", overrides);
        Service::start("forebay-autoscaler", command, self.store.folder())
    }

    /// Runs `forebay` with `arguments` to its end.
    pub async fn forebay(&self, arguments: &[&str]) -> Finished {
        let mut command = self.program("forebay", &[]);
        command.args(arguments);
        self.run(command).await
    }

    /// Runs any command to its end, with empty input.
    pub async fn run(&self, command: Command) -> Finished {
        let scratch = tempfile::tempdir_in(self.store.folder()).unwrap();
        let output = scratch.path().join("output");
        let errors = scratch.path().join("errors");
        let streams =
            Streams { input: None, output: output.clone(), errors: errors.clone(), sweep: None };
        let mut running = ChildGuard::tie(&command, &streams);
        let code =
            until(&format!("{command:?} ends"), SOON * 2, async || running.exit_code()).await;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Finished { code, output: read(output), errors: read(errors) }
    }

    /// A program with this stack's addresses in its environment and nothing else of the developer's own.
    pub fn program(&self, name: &str, overrides: &[(&str, &str)]) -> Command {
        let mut command = Command::new(binary(name));
        self.address(&mut command);
        command.arg("--config").arg(self.config());
        command.envs(overrides.iter().copied());
        command
    }

    /// The configuration that its programs read.
    pub fn config(&self) -> PathBuf {
        self.store.folder().join("forebay.toml")
    }

    /// Where its programs find the broker.
    pub fn amqp_url(&self) -> String {
        match &self.relays {
            Some(relays) => self.vhost.amqp_url_at(relays.broker.port()),
            None => self.vhost.amqp_url(),
        }
    }

    /// Where its programs find the store.
    pub fn redis_url(&self) -> String {
        match &self.relays {
            Some(relays) => Store::url_at(relays.store.port()),
            None => self.store.url(),
        }
    }

    /// Puts this stack's addresses into a command's environment.
    pub fn address(&self, command: &mut Command) {
        let ours = |name: &OsStr| {
            name.to_string_lossy().starts_with("FOREBAY_") && name != "FOREBAY_MODELS_DIR"
        };
        for (name, _) in env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command
            .env("FOREBAY_AMQP_URL", self.amqp_url())
            .env("FOREBAY_MANAGEMENT_URL", self.vhost.management_url())
            .env("FOREBAY_REDIS_URL", self.redis_url())
            .env("NO_COLOR", "1");
        if let Some(tiny) = &self.tiny {
            command.env("FOREBAY_MODELS_DIR", &tiny.models);
        }
    }

    /// A raw publisher.
    pub async fn publisher(&self) -> Publisher {
        Publisher::connect(&self.vhost.amqp_url()).await
    }

    /// A connection to the results.
    pub async fn redis(&self) -> MultiplexedConnection {
        self.store.connect().await
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// A stack with one worker and an autoscaler, for tests that only submit jobs and look at results.
#[derive(Debug)]
pub struct SharedFleet {
    /// The servers.
    pub stack: Stack,
    /// The only worker.
    pub worker: Service,
    /// Settles what no worker will.
    pub autoscaler: Service,
}

impl SharedFleet {
    /// Starts it, or finds it running.
    pub async fn borrow() -> BorrowedFleet {
        BorrowedFleet(SHARED.get_or_init(Self::start).await)
    }

    async fn start() -> Self {
        let stack = Stack::start().await;
        let bytes_max = SHARED_BODY_BYTES_MAX.to_string();
        let overrides = [("FOREBAY_LIMITS__BODY_BYTES_MAX", bytes_max.as_str())];
        let autoscaler = stack.autoscaler(&overrides).await;
        let worker = stack.worker(&overrides).await;
        Self { stack, worker, autoscaler }
    }
}

/// The shared fleet in the hands of one test: shows the logs when that test fails.
#[derive(Debug)]
pub struct BorrowedFleet(&'static SharedFleet);

impl std::ops::Deref for BorrowedFleet {
    type Target = SharedFleet;

    fn deref(&self) -> &SharedFleet {
        self.0
    }
}

impl Drop for BorrowedFleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.show_log();
            self.autoscaler.show_log();
        }
    }
}
