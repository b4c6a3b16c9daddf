//! A `RabbitMQ` node on ports of its own, which can be stopped, killed and started again with its data.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::encrypted::Encrypted;
use super::management::Management;
use super::vhost::Vhost;
use crate::child_guard::{ChildGuard, Streams};
use crate::patience::{PATIENT, SOON, until, until_true};
use crate::{ports, servers};

/// The port between nodes on the loopback interface too, and shorter times of the broker's, for which tests wait.
/// Quorum queues count themselves every half second rather than every five; from 4.3 on that is also when they look for
/// consumer time-outs, which before are looked for by the channels, once a minute if it were not said here. From 4.3
/// on, a queue takes back what the consumers of a lost node hold after this time only, which would be a minute.
const RUNTIME_ARGUMENTS: &str = "-kernel inet_dist_use_interface {127,0,0,1} \
     -rabbit quorum_tick_interval 500 -rabbit channel_tick_interval 500 \
     -rabbit consumer_disconnected_timeout 1000";

/// How many lines of errors a failure shows.
const ERROR_LINES: usize = 40;

/// The resources that the nodes of a cluster share: a name server and, in its folder, the cookie.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    epmd_port: u16,
    // Ends before its folder goes.
    _epmd: ChildGuard,
    home: TempDir,
}

impl Neighbourhood {
    pub(super) fn new() -> Arc<Self> {
        let home = tempfile::Builder::new().prefix("forebay-rabbitmq-").tempdir().unwrap();
        let epmd_port = ports::free_port();
        let mut command = Command::new(servers::epmd());
        command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let log = home.path().join("epmd.log");
        let epmd = ChildGuard::tie(&command, &Streams::to(&log).sweeping(home.path()));
        Arc::new(Self { epmd_port, _epmd: epmd, home })
    }
}

/// A node; gone with its value, and its data with it.
#[derive(Debug)]
pub struct Node {
    server: Option<ChildGuard>,
    name: String,
    dist_port: u16,
    amqp_port: u16,
    management_port: u16,
    folder: PathBuf,
    encrypted: Option<Arc<Encrypted>>,
    // Last: it outlives the node.
    neighbourhood: Arc<Neighbourhood>,
}

impl Node {
    /// Boots a node of its own; five to ten seconds.
    pub async fn boot() -> Self {
        Self::boot_with("").await
    }

    /// Boots a node of its own with more lines in its configuration.
    pub async fn boot_with(more: &str) -> Self {
        let neighbourhood = Neighbourhood::new();
        let encrypted = Encrypted::new(neighbourhood.home.path());
        let more = format!("{}\n{more}", encrypted.configuration());
        let mut node = Self::configured(&neighbourhood, "alone", &more);
        node.encrypted = Some(Arc::new(encrypted));
        node.start().await;
        node
    }

    /// A node with ports and a folder of its own, not booted yet; `more` is appended to its configuration.
    pub(super) fn configured(neighbourhood: &Arc<Neighbourhood>, name: &str, more: &str) -> Self {
        let folder = neighbourhood.home.path().join(name);
        fs::create_dir(&folder).unwrap();
        let node = Self {
            server: None,
            name: node_name(name),
            dist_port: ports::free_port(),
            amqp_port: ports::free_port(),
            management_port: ports::free_port(),
            folder,
            encrypted: None,
            neighbourhood: neighbourhood.clone(),
        };
        node.write_configuration(more);
        node
    }

    /// Boots it, with the data that it had.
    pub async fn start(&mut self) {
        self.begin();
        self.answers().await;
    }

    /// Begins to boot it.
    pub fn begin(&mut self) {
        let streams = Streams::to(&self.log()).sweeping(self.neighbourhood.home.path());
        self.server = Some(ChildGuard::tie(&self.command("rabbitmq-server"), &streams));
    }

    /// Waits until a node that was begun answers.
    pub async fn answers(&mut self) {
        let management = self.management();
        let log = self.log();
        let server = self.server.as_mut().expect("a node that was begun");
        until_true("RabbitMQ answers on its management port", PATIENT, async || {
            if let Some(code) = server.exit_code() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("RabbitMQ ended with code {code}:\n{log}");
            }
            matches!(management.request("GET", "/api/overview"), Some((200, _)))
        })
        .await;
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Stops it from doing anything, while its connections stay open.
    pub fn freeze(&self) {
        self.server.as_ref().expect("a node that was begun").signal_all("STOP");
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) {
        self.server.as_ref().expect("a node that was begun").signal_all("CONT");
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.signal("TERM");
        until("RabbitMQ stops", PATIENT, async || server.exit_code()).await;
    }

    /// Runs `rabbitmqctl` on it and answers what that printed. It takes seconds.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command("rabbitmqctl");
        command.args(["--node", &self.name]).args(arguments);
        let scratch = tempfile::tempdir_in(&self.folder).unwrap();
        let log = scratch.path().join("output");
        let mut running = ChildGuard::tie(&command, &Streams::to(&log));
        let code = until("rabbitmqctl ends", SOON * 2, async || running.exit_code()).await;
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(code, 0, "rabbitmqctl {arguments:?}: {said}");
        said
    }

    /// The port of AMQP.
    pub fn amqp_port(&self) -> u16 {
        self.amqp_port
    }

    /// The management plug-in.
    pub fn management(&self) -> Management {
        Management::new(self.management_port)
    }

    /// A new virtual host, empty and used by this caller alone.
    pub async fn vhost(&self) -> Vhost {
        Vhost::create(self.amqp_port, self.management(), self.encrypted.clone()).await
    }

    /// Shows what it has logged of errors on standard error.
    pub fn show_log(&self) {
        for file in fs::read_dir(self.folder.join("log")).into_iter().flatten().flatten() {
            let log = fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("[error]")).collect();
            // The first ones: what comes after is mostly their doing.
            let first = &lines[..lines.len().min(ERROR_LINES)];
            eprintln!("--- {} logged of errors first:\n{}\n---", self.name, first.join("\n"));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// Statistics every half second rather than every five: tests wait for them.
    fn write_configuration(&self, more: &str) {
        let amqp_port = self.amqp_port;
        let management_port = self.management_port;
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp_port}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management_port}\n\
             collect_statistics_interval = 500\n\
             {more}"
        );
        fs::write(self.folder.join("rabbitmq.conf"), configuration).unwrap();
        fs::write(self.folder.join("plugins"), "[rabbitmq_management].\n").unwrap();
    }

    /// One of its scripts, in its environment.
    fn command(&self, script: &str) -> Command {
        let folder = self.folder.as_path();
        let mut command = Command::new(servers::rabbitmq(script));
        command
            .current_dir(folder)
            .env("HOME", self.neighbourhood.home.path()) // the cookie is made there
            .env("ERL_EPMD_PORT", self.neighbourhood.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", RUNTIME_ARGUMENTS)
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("none"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
        command
    }
}

/// The Erlang name by which the other nodes reach one.
pub(super) fn node_name(name: &str) -> String {
    format!("forebay-tests-{}-{name}@localhost", std::process::id())
}
