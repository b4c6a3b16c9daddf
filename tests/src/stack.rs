//! Servers for one test, and the services and commands that use them.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;

use crate::binaries::{binary, checkout};
use crate::broker::{Broker, Vhost};
use crate::leash::{Leash, Streams};
use crate::model::{MODEL, require_weights};
use crate::patience::{SOON, until};
use crate::publisher::Publisher;
use crate::service::Service;
use crate::store::Store;

/// How long a worker may take to stop: its grace period and a little more.
pub const GRACE: Duration = Duration::from_secs(60);

/// The body limit of the shared fleet: low, so that a body over it is quickly made.
pub const SHARED_BODY_BYTES_MAX: usize = 1 << 20;

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// A virtual host and a Redis that belong together.
#[derive(Debug)]
pub struct Stack {
    /// The broker's side.
    pub vhost: Vhost,
    /// The results' side.
    pub store: Store,
}

impl Stack {
    /// New and empty: no topology, no keys, no services.
    pub async fn start() -> Self {
        let vhost = Broker::shared().await.vhost();
        Self { vhost, store: Store::start().await }
    }

    /// New, with the topology declared: whoever connects does that.
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

    /// The same, not waited for.
    pub fn starting_worker(&self, overrides: &[(&str, &str)]) -> Service {
        require_weights();
        let mut command = self.program("forebay-worker", overrides);
        // The reference is float32, whatever type this machine's processor would do best in.
        command.args(["--model", MODEL, "--threads", "1", "--dtype", "f32"]);
        Service::start("forebay-worker", command, self.store.folder())
    }

    /// An autoscaler, ready.
    pub async fn autoscaler(&self, overrides: &[(&str, &str)]) -> Service {
        let command = self.program("forebay-autoscaler", overrides);
        Service::start("forebay-autoscaler", command, self.store.folder()).ready().await
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
        let (output, errors) = (scratch.path().join("output"), scratch.path().join("errors"));
        let streams =
            Streams { input: None, output: output.clone(), errors: errors.clone(), sweep: None };
        let mut running = Leash::tie(&command, &streams);
        let code =
            until(&format!("{command:?} ends"), SOON * 2, async || running.exit_code()).await;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Finished { code, output: read(output), errors: read(errors) }
    }

    /// A program with this stack's addresses in its environment and nothing else of the developer's own.
    pub fn program(&self, name: &str, overrides: &[(&str, &str)]) -> Command {
        let mut command = Command::new(binary(name));
        self.address(&mut command);
        command.arg("--config").arg(checkout().join("forebay.toml"));
        command.envs(overrides.iter().copied());
        command
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
            .env("FOREBAY_AMQP_URL", self.vhost.amqp_url())
            .env("FOREBAY_MANAGEMENT_URL", self.vhost.management_url())
            .env("FOREBAY_REDIS_URL", self.store.url())
            .env("NO_COLOR", "1");
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
pub struct Shared {
    /// The servers.
    pub stack: Stack,
    /// The only worker.
    pub worker: Service,
    /// Settles what no worker will.
    pub autoscaler: Service,
}

impl Shared {
    /// Starts it, or finds it running.
    pub async fn fleet() -> Borrowed {
        Borrowed(SHARED.get_or_init(Self::start).await)
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
pub struct Borrowed(&'static Shared);

impl std::ops::Deref for Borrowed {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        self.0
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.show_log();
            self.autoscaler.show_log();
        }
    }
}
