//! The one configuration of all services: `forebay.toml` with `FOREBAY_*` overrides.
//!
//! Every value has a default that works on one machine. A mistake is an error that names the file and
//! line, or the variable, and what to do.

mod error;
mod folders;
mod gateway;
mod load;
mod pools;
mod price;
mod remote;
mod renamed;
mod route_error;
mod route_name;
mod routes;
mod secret;
mod sections;
mod settings;
mod usage;

pub use crate::tls::TlsConfig;
pub use error::ConfigError;
pub use gateway::GatewayConfig;
pub use load::{FILE_DEFAULT, Loaded, api_key_env, for_workers};
pub use pools::{
    AutoscalerConfig, DeviceKind, DockerConfig, Environment, KubernetesConfig, LauncherKind,
    PoolConfig, ProcessConfig,
};
pub use price::{NANOS, NotDecimal, Price, format_decimal, parse_decimal};
pub use remote::{RemoteConfig, RemoteEncoding, RemoteScores, RemoteTask};
pub use route_error::RouteError;
pub use route_name::{InvalidRouteName, RouteName};
pub use routes::{Preference, RouteConfig, RouteTarget, Truncation};
pub use secret::SecretUrl;
pub use sections::{
    BrokerConfig, LogFormat, ModelConfig, NumberType, OpenTask, StoreConfig, TelemetryConfig,
    WorkerConfig,
};
pub use settings::Config;
pub use usage::UsageConfig;
