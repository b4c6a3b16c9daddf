//! Telemetry of a service: log lines, metrics, liveness and readiness.

mod health;
mod server;

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetryConfig};

pub use health::Health;
pub use server::{Server, ServerError};

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error(
        "telemetry.log_filter `{filter}`: {reason}; write `info` or `forebay_fabric=debug,info`"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// Why it can't be read.
        reason: String,
    },
    /// Logs or metrics have been set up before.
    #[error("telemetry is set up already: {0}; set it up once, at the start of `main`")]
    Twice(String),
}

/// Starts writing log lines to standard error.
pub fn init_logs(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|e| TelemetryError::Filter {
        filter: config.log_filter.clone(),
        reason: e.to_string(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|e| TelemetryError::Twice(e.to_string()))
}

/// Upper bounds of the latency histograms, in milliseconds: from a cache hit to a cold start.
const BUCKETS_MS: [f64; 14] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 15_000.0,
    60_000.0,
];
/// Upper bounds of the histograms of counts: from one to the largest batch.
const BUCKETS_COUNT: [f64; 10] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0];

/// Starts collecting metrics: those named `*_ms` into buckets of time, other histograms into counts.
pub fn init_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let twice = |e: &dyn std::fmt::Display| TelemetryError::Twice(e.to_string());
    PrometheusBuilder::new()
        .set_buckets(&BUCKETS_COUNT)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_ms".into()), &BUCKETS_MS)
        })
        .map_err(|e| twice(&e))?
        .install_recorder()
        .map_err(|e| twice(&e))
}
