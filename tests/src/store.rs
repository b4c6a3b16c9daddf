//! A private Redis for one test, which can be frozen, killed and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::certificates::{Files, HOST, OTHER_HOST};
use crate::child_guard::{ChildGuard, Streams};
use crate::patience::{SOON, until, until_true};
use crate::{ports, servers};

/// A running server with an empty store. It logs every write, so that a kill loses nothing.
#[derive(Debug)]
pub struct Store {
    server: Option<ChildGuard>,
    folder: TempDir,
    port: u16,
    encrypted: Option<Encrypted>,
}

/// A second, encrypted port.
#[derive(Debug)]
struct Encrypted {
    port: u16,
    files: Files,
    /// Whether clients have to show a certificate of the same authority.
    asks_clients: bool,
}

impl Store {
    /// Starts a server; well under a second.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a server that also speaks TLS, with this certificate, on another port.
    pub async fn start_encrypted(files: Files, asks_clients: bool) -> Self {
        Self::start_with(Some(Encrypted { port: ports::free_port(), files, asks_clients })).await
    }

    async fn start_with(encrypted: Option<Encrypted>) -> Self {
        let folder = tempfile::Builder::new().prefix("forebay-redis-").tempdir().unwrap();
        let mut store = Self { server: None, folder, port: ports::free_port(), encrypted };
        store.restart().await;
        store
    }

    /// The address that a client connects to.
    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// The encrypted port.
    pub fn encrypted_port(&self) -> u16 {
        self.encrypted.as_ref().expect("a Redis that was started encrypted").port
    }

    /// The encrypted address, with the server under any of its names.
    pub fn encrypted_url(&self, host: &str) -> String {
        format!("rediss://{host}:{}/0", self.encrypted_port())
    }

    /// A folder that goes when the server goes, also for what else belongs to the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection of one's own. A busy machine may take longer to answer on it than the client's half second.
    pub async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
        until("Redis takes a connection", SOON, async || {
            client.get_multiplexed_async_connection_with_config(&config).await.ok()
        })
        .await
    }

    /// Stops the server from answering, while connections stay open.
    pub fn freeze(&self) {
        self.server.as_ref().expect("a running Redis").signal("STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.server.as_ref().expect("a running Redis").signal("CONT");
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Starts the server again on the same port with what it held.
    pub async fn restart(&mut self) {
        self.kill();
        let log = self.log();
        self.server = Some(ChildGuard::tie(
            &self.server_command(),
            &Streams::to(&log).sweeping(self.folder.path()),
        ));
        until_true("Redis answers", SOON, async || self.answers().await).await;
    }

    /// Starts the server again with nothing, as after the loss of its disk.
    pub async fn restart_empty(&mut self) {
        self.kill();
        for entry in fs::read_dir(self.folder()).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("appendonly") {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        self.restart().await;
    }

    /// Takes its memory away: it refuses writes with `OOM` and answers reads.
    pub async fn fill(&self) {
        self.configure("maxmemory", "1").await;
    }

    /// Gives it back what `fill` took.
    pub async fn relieve(&self) {
        self.configure("maxmemory", "0").await;
    }

    /// Makes it a replica of another port's server, so that it refuses writes.
    pub async fn follow(&self, primary_port: u16) {
        self.command(&["REPLICAOF", "127.0.0.1", &primary_port.to_string()]).await;
    }

    /// Makes it a primary again, with what it holds.
    pub async fn lead(&self) {
        self.command(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Sets one of its settings.
    pub async fn configure(&self, name: &str, value: &str) {
        self.command(&["CONFIG", "SET", name, value]).await;
    }

    /// Runs any command and forgets the answer.
    pub async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer = command.query_async::<redis::Value>(&mut self.connect().await).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address by way of another port, such as that of a relay.
    pub fn url_at(port: u16) -> String {
        format!("redis://127.0.0.1:{port}/0")
    }

    async fn answers(&self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("output.log")
    }

    /// Every write reaches its log before it is answered. The default would put off writing to the log while
    /// the disk is busy, and a kill would lose what was answered meanwhile.
    fn server_command(&self) -> Command {
        let mut command = Command::new(servers::redis());
        command.args(["--port", &self.port.to_string(), "--bind", HOST, OTHER_HOST]);
        command.arg("--dir").arg(self.folder.path());
        command.args(["--appendonly", "yes", "--appendfsync", "no", "--save", ""]);
        command.args(["--repl-diskless-sync-delay", "0"]);
        if let Some(Encrypted { port, files, asks_clients }) = &self.encrypted {
            command.args(["--tls-port", &port.to_string()]);
            command.args(["--tls-auth-clients", if *asks_clients { "yes" } else { "optional" }]);
            command.arg("--tls-ca-cert-file").arg(&files.ca);
            command.arg("--tls-cert-file").arg(&files.cert);
            command.arg("--tls-key-file").arg(&files.key);
        }
        command
    }
}
