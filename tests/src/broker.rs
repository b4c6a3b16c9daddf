//! A private `RabbitMQ` for this test process, and a virtual host for each test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::certificates::{Authority, Files, HOST, OTHER_HOST};
use crate::leash::{Leash, Streams};
use crate::patience::{PATIENT, SOON, until_true};
use crate::{ports, probe};

/// `guest:guest`, which `RabbitMQ` accepts from the loopback interface only.
const AUTHORIZATION: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

/// The name server runs in the node's own group, so nothing is left behind when the group is killed.
const BOOT: &str = r#"epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$1""#;

/// The port between nodes on the loopback interface too, and quorum queues that count themselves every half
/// second rather than every five: tests wait for that.
const RUNTIME_ARGUMENTS: &str =
    "-kernel inet_dist_use_interface {127,0,0,1} -rabbit quorum_tick_interval 500";

/// Where Debian's package keeps the scripts; those in `/usr/sbin` switch to the system's own user and node.
const INSTALLED: &str = "/usr/lib/rabbitmq/lib";

static BROKER: OnceCell<Broker> = OnceCell::const_new();
static VHOSTS: AtomicU32 = AtomicU32::new(0);

/// The one node of this process; booted at first use, in five to ten seconds.
#[derive(Debug)]
pub struct Broker {
    amqp_port: u16,
    management_port: u16,
    encrypted: Encrypted,
    _node: Leash,
    _folder: TempDir,
}

impl Broker {
    /// Boots the node, or finds it running.
    pub async fn shared() -> &'static Self {
        BROKER.get_or_init(Self::boot).await
    }

    async fn boot() -> Self {
        let folder = tempfile::Builder::new().prefix("forebay-rabbitmq-").tempdir().unwrap();
        let (amqp_port, management_port) = (ports::free_port(), ports::free_port());
        write_configuration(folder.path(), amqp_port, management_port);
        let encrypted = Encrypted::listen(folder.path());
        let log = folder.path().join("output.log");
        let mut node =
            Leash::tie(&node_command(folder.path()), &Streams::to(&log).sweeping(folder.path()));
        until_true("RabbitMQ answers on its management port", PATIENT, async || {
            if let Some(code) = node.exit_code() {
                panic!(
                    "RabbitMQ ended with code {code}:\n{}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            matches!(request(management_port, "GET", "/api/overview"), Some((200, _)))
        })
        .await;
        Self { amqp_port, management_port, encrypted, _node: node, _folder: folder }
    }

    /// `http://guest:guest@127.0.0.1:port`
    pub fn management_url(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.management_port)
    }

    /// A new virtual host, empty and nobody else's.
    pub fn vhost(&'static self) -> Vhost {
        let name = format!("test-{}", VHOSTS.fetch_add(1, Ordering::Relaxed));
        for path in [format!("/api/vhosts/{name}"), format!("/api/permissions/{name}/guest")] {
            let answer = request(self.management_port, "PUT", &path);
            assert!(matches!(answer, Some((200..=204, _))), "PUT {path}: {answer:?}");
        }
        Vhost { broker: self, name }
    }
}

/// The encrypted side of the node: a certificate, and the ports that show it.
#[derive(Debug)]
struct Encrypted {
    amqp_port: u16,
    management_port: u16,
    files: Files,
}

impl Encrypted {
    /// Adds the listeners to the node's configuration. A client that shows a certificate has to show one of
    /// the same authority.
    fn listen(folder: &Path) -> Self {
        let files = Authority::shared().certify(&folder.join("certificates"));
        let (amqp_port, management_port) = (ports::free_port(), ports::free_port());
        let mut lines = format!(
            "listeners.ssl.1 = {HOST}:{amqp_port}\n\
             listeners.ssl.2 = {OTHER_HOST}:{amqp_port}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = false\n\
             management.ssl.ip = {HOST}\n\
             management.ssl.port = {management_port}\n"
        );
        for options in ["ssl_options", "management.ssl"] {
            for (key, file) in
                [("cacertfile", &files.ca), ("certfile", &files.cert), ("keyfile", &files.key)]
            {
                writeln!(lines, "{options}.{key} = {}", file.display()).unwrap();
            }
        }
        let path = folder.join("rabbitmq.conf");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &lines).unwrap();
        Self { amqp_port, management_port, files }
    }
}

/// One test's own corner of the broker; removed when dropped.
#[derive(Debug)]
pub struct Vhost {
    broker: &'static Broker,
    name: String,
}

impl Vhost {
    /// What a client connects to.
    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{}", self.broker.amqp_port, self.name)
    }

    /// The same, encrypted, with the server under any of its names.
    pub fn amqps_url(&self, host: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/{}", self.broker.encrypted.amqp_port, self.name)
    }

    /// What a client asks about queues.
    pub fn management_url(&self) -> String {
        self.broker.management_url()
    }

    /// The same, encrypted.
    pub fn encrypted_management_url(&self) -> String {
        format!("https://guest:guest@{HOST}:{}", self.broker.encrypted.management_port)
    }

    /// The certificate of the encrypted side.
    pub fn certificate(&self) -> &Files {
        &self.broker.encrypted.files
    }

    /// A queue's properties as the management plug-in knows them (they lag by half a second); `None` when
    /// there is no such queue.
    pub fn queue(&self, name: &str) -> Option<Value> {
        match self.call("GET", &format!("/api/queues/{}/{name}", self.name)) {
            (200, body) => Some(body),
            _ => None,
        }
    }

    /// Messages in a queue, ready and unacknowledged; 0 when there is no such queue.
    pub fn depth(&self, name: &str) -> u64 {
        self.queue(name).and_then(|queue| queue["messages"].as_u64()).unwrap_or(0)
    }

    /// Waits until the broker lists as many connections; it learns of them half a second late.
    pub async fn connected(&self, count: usize) {
        let listed = async || self.connections().len() >= count;
        until_true("the broker lists its connections", SOON, listed).await;
    }

    /// Cuts every listed connection to this virtual host, as an administrator would; answers how many.
    pub fn cut_connections(&self) -> usize {
        let names = self.connections();
        for name in &names {
            let escaped = name.replace(' ', "%20").replace('>', "%3E");
            self.call("DELETE", &format!("/api/connections/{escaped}"));
        }
        names.len()
    }

    fn connections(&self) -> Vec<String> {
        let (_, body) = self.call("GET", &format!("/api/vhosts/{}/connections", self.name));
        let connections = body.as_array().map(Vec::as_slice).unwrap_or_default();
        connections.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
    }

    fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let answer = request(self.broker.management_port, method, path);
        answer.unwrap_or_else(|| panic!("{method} {path}: the management plug-in does not answer"))
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let _ =
            request(self.broker.management_port, "DELETE", &format!("/api/vhosts/{}", self.name));
    }
}

/// Status and body; `None` when nobody answers.
fn request(port: u16, method: &str, path: &str) -> Option<(u16, Value)> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let agent = probe::agent();
    let answer = match method {
        "GET" => agent.get(url).header("authorization", AUTHORIZATION).call(),
        "DELETE" => agent.delete(url).header("authorization", AUTHORIZATION).call(),
        _ => {
            let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
            agent.put(url).header("authorization", AUTHORIZATION).send_json(everything)
        }
    };
    let mut answer = answer.ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null)))
}

/// Statistics every half second rather than every five: tests wait for them.
fn write_configuration(folder: &Path, amqp_port: u16, management_port: u16) {
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp_port}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management_port}\n\
         collect_statistics_interval = 500\n"
    );
    fs::write(folder.join("rabbitmq.conf"), configuration).unwrap();
    fs::write(folder.join("plugins"), "[rabbitmq_management].\n").unwrap();
}

fn node_command(folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", BOOT, "boot"]).arg(server_script()).current_dir(folder);
    command
        .env("HOME", folder) // the cookie is made there
        .env("ERL_EPMD_PORT", ports::free_port().to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("forebay-tests-{}@localhost", std::process::id()))
        .env("RABBITMQ_DIST_PORT", ports::free_port().to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", RUNTIME_ARGUMENTS)
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("none"))
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
    command
}

fn server_script() -> PathBuf {
    let versions = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let scripts = versions.map(|version| version.path().join("sbin/rabbitmq-server"));
    let newest = scripts.filter(|script| script.exists()).max();
    newest.unwrap_or_else(|| {
        panic!("no RabbitMQ under {INSTALLED}; run: apt-get install rabbitmq-server")
    })
}
