//! Telemetry of a service: log lines, metrics, traces, liveness and readiness.

mod health;
mod server;
mod text;
pub mod trace;

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::{LogFormat, TelemetryConfig};
use text::OneLine;
use trace::TraceError;

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
    /// Traces can't be exported.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Starts writing log lines to standard error.
pub fn init_logs(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|e| TelemetryError::Filter {
        filter: config.log_filter.clone(),
        reason: e.to_string(),
    })?;
    let ansi = std::io::stderr().is_terminal();
    let subscriber = subscriber(config.log_format, filter, std::io::stderr, ansi);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|e| TelemetryError::Twice(e.to_string()))
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
    ansi: bool,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(ansi);
    match format {
        LogFormat::Text => Box::new(lines.with_target(false).fmt_fields(OneLine).finish()),
        // JSON escapes what breaks a line by itself.
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    }
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

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, ansi: bool, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(format, EnvFilter::new("info"), move || writer.clone(), ansi);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_field_makes_a_line_or_moves_a_cursor() {
        let forged = "x\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}2J\u{2028}\u{202e}";
        let error = std::io::Error::other(forged);
        for format in [LogFormat::Text, LogFormat::Json] {
            let written = logged(format, false, || {
                let _span = tracing::info_span!("span", forged).entered();
                tracing::warn!(%error, text = forged, "a message of {forged}");
            });
            assert_eq!(written.lines().count(), 1, "{written}");
            let unseen = |c: char| c != '\n' && c.is_ascii_control();
            assert!(!written.contains(unseen), "{written:?}");
        }
        let written = logged(LogFormat::Text, false, || tracing::warn!(%error, "seen"));
        assert!(written.contains(r"WARN seen error=x\r\n2026"), "{written}");
        assert!(written.contains(r"forged\u{1b}[2J\u{9b}2J\u{2028}\u{202e}"), "{written}");
    }

    #[test]
    fn on_a_terminal_names_are_set_off_and_values_escaped_too() {
        let written = logged(LogFormat::Text, true, || tracing::info!(n = 1, s = "\u{1b}", "m"));
        assert!(written.contains("m \u{1b}[3mn\u{1b}[0m\u{1b}[2m=\u{1b}[0m1"), "{written:?}");
        assert!(written.ends_with("\"\\u{1b}\"\n"), "{written:?}");
    }
}
