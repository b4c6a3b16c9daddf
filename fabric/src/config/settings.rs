//! [`Config`]: the whole configuration, and the checks that the types don't make.

use std::{collections::BTreeMap, path::PathBuf};

use forebay_schemas::{Limits, ModelId, topology::QueueSettings};
use serde::{Deserialize, Serialize};

use super::{
    error::ConfigError,
    folders::user_folder,
    gateway::GatewayConfig,
    pools::AutoscalerConfig,
    route_name::RouteName,
    routes::RouteConfig,
    secret::SecretUrl,
    sections::{BrokerConfig, ModelConfig, StoreConfig, TelemetryConfig, WorkerConfig},
    usage::UsageConfig,
};
use crate::tls::TlsConfig;

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address of RabbitMQ: `amqp://user:password@host:5672/vhost`.
    pub amqp_url: SecretUrl,
    /// The address of Redis: `redis://user:password@host:6379/0`.
    pub redis_url: SecretUrl,
    /// The address of RabbitMQ's management API; without it, queues are read one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_url: Option<SecretUrl>,
    /// The address of the gateway, for clients that go through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<SecretUrl>,
    /// The folder of models; the user's cache folder unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models_dir: Option<PathBuf>,
    /// Trusted authorities and the client certificate of encrypted connections.
    pub tls: TlsConfig,
    /// Bounds that every job must keep.
    pub limits: Limits,
    /// The settings that queues are declared with; equal in all services of a fleet.
    pub queues: QueueSettings,
    /// The connections to RabbitMQ.
    pub broker: BrokerConfig,
    /// The connections to Redis.
    pub store: StoreConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// The autoscaler.
    pub autoscaler: AutoscalerConfig,
    /// The gateway.
    pub gateway: GatewayConfig,
    /// Metering.
    pub usage: UsageConfig,
    /// Logs, metrics and health of each service.
    pub telemetry: TelemetryConfig,
    /// The models of this fleet.
    pub models: BTreeMap<ModelId, ModelConfig>,
    /// Names that clients of the gateway send, and the models that answer them.
    pub routes: BTreeMap<RouteName, RouteConfig>,
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
            gateway: GatewayConfig::default(),
            usage: UsageConfig::default(),
            telemetry: TelemetryConfig::default(),
            models: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The folder of models: `models_dir`, else the user's cache folder. There is no other: in a folder that others may
    /// write to, such as the system's temporary one, any of them could put a model of their own.
    pub fn models_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(folder) = &self.models_dir {
            return Ok(folder.clone());
        }
        user_folder("XDG_CACHE_HOME", ".cache", |name| std::env::var_os(name))
            .map(|cache| cache.join("forebay").join("models"))
            .ok_or(ConfigError::NoFolder { key: "models_dir", variable: "XDG_CACHE_HOME" })
    }

    /// The folder of one model.
    pub fn model_dir(&self, model: &ModelId) -> Result<PathBuf, ConfigError> {
        Ok(self.models_dir()?.join(model.as_str()))
    }

    /// The configuration as `forebay.toml` would have it, secrets hidden.
    pub fn to_toml(&self) -> String {
        // Writing these types fails on no value that they can have.
        toml::to_string_pretty(self)
            .unwrap_or_else(|error| format!("# can't be written: {error}\n"))
    }

    /// Warnings of connections that are not encrypted although there is a `[tls]`: probably a forgotten `s`.
    pub(super) fn unencrypted(&self) -> Vec<String> {
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
                format!("there is a [tls], but `{key}` is not {scheme}://: it is not encrypted; write {scheme}://")
            })
            .collect()
    }

    /// Checks what the types don't say. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let at_least = |key: &str, value: u64, min: u64| {
            if value < min {
                return Err(format!("`{key}` is {value}: use {min} or more"));
            }
            Ok(())
        };
        let worker = &self.worker;
        let broker = &self.broker;
        let store = &self.store;
        at_least("worker.batch_items_max", worker.batch_items_max as u64, 1)?;
        at_least("worker.prefetch_interactive", worker.prefetch_interactive.into(), 1)?;
        at_least("worker.prefetch_batch", worker.prefetch_batch.into(), 1)?;
        at_least("worker.tokenize_threads", worker.tokenize_threads as u64, 1)?;
        at_least("worker.grace_s", worker.grace_s, 1)?;
        at_least("worker.attempts_max", worker.attempts_max.into(), 1)?;
        at_least("worker.batch_deadline_s", worker.batch_deadline_s, 1)?;
        worker.check_tenant_weights()?;
        at_least("broker.connect_timeout_ms", broker.connect_timeout_ms, 1)?;
        at_least("broker.backoff_ms_max", broker.backoff_ms_max, 100)?;
        at_least("broker.publish_timeout_ms", broker.publish_timeout_ms, 1)?;
        at_least("broker.confirms_in_flight_max", broker.confirms_in_flight_max as u64, 1)?;
        at_least("broker.channels_max", broker.channels_max as u64, 1)?;
        // A dead letter is cut to this, and a reply that is too large replaced by one of some hundred bytes.
        at_least("broker.message_bytes_max", broker.message_bytes_max as u64, 4_096)?;
        at_least("store.connections_max", store.connections_max as u64, 1)?;
        at_least("store.timeout_ms", store.timeout_ms, 1)?;
        at_least("limits.body_bytes_max", self.limits.body_bytes_max as u64, 1)?;
        at_least("limits.inputs_max", self.limits.inputs_max as u64, 1)?;
        at_least("limits.depth_max", self.limits.depth_max as u64, 4)?;
        at_least("queues.length_max", self.queues.length_max, 1)?;
        at_least("queues.delivery_limit", self.queues.delivery_limit, 1)?;
        at_least("usage.unread_max", self.usage.unread_max, 1)?;
        at_least("usage.keep_days", self.usage.keep_days, 32)?;
        let autoscaler = &self.autoscaler;
        at_least("autoscaler.tick_ms", autoscaler.tick_ms, 50)?;
        // A leader renews its lease every tick, and one tick may be late.
        at_least("autoscaler.lease_ms", autoscaler.lease_ms, 3 * autoscaler.tick_ms)?;
        at_least("autoscaler.stuck_s", autoscaler.stuck_s, 1)?;
        at_least("autoscaler.start_s_max", autoscaler.start_s_max, 1)?;
        // A drained worker that keeps to its own grace period must not be ended before.
        at_least("autoscaler.grace_s", autoscaler.grace_s, worker.grace_s + 5)?;
        at_least("autoscaler.workers_per_gpu", autoscaler.workers_per_gpu.into(), 1)?;
        at_least("autoscaler.process.log_bytes_max", autoscaler.process.log_bytes_max, 10_000)?;
        for (key, value, min) in self.gateway.minima() {
            at_least(key, value, min)?;
        }
        self.telemetry.check()?;
        for (model, settings) in &self.models {
            settings.pool.check(&format!("models.{model}.pool"))?;
            settings.check(&format!("models.{model}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PoolConfig;

    #[test]
    fn the_reference_page_has_every_key_of_tls() {
        let page = include_str!("../../../docs/configuration.md");
        let start = page.find("## `[tls]`").unwrap();
        // None of them has a default, so they are taken from the error that lists them.
        let error = toml::from_str::<TlsConfig>("x = 1").unwrap_err().to_string();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(keys.len(), 3, "{error}");
        for key in keys {
            assert!(page[start..].contains(&format!("| `{key}` |")), "[tls] lacks `{key}`");
        }
    }

    #[test]
    fn an_unencrypted_url_is_noticed_where_there_is_a_tls_table() {
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
