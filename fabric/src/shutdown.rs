//! SIGTERM and SIGINT as a cancellation token.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A SIGTERM that follows another this soon counts as the same one: a worker may get one from its service manager and
/// one from its autoscaler.
const SAME_WITHIN: Duration = Duration::from_secs(5);

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let first = next().await;
        tracing::info!(signal = first, "stopping; a second signal ends at once");
        cancelled.cancel();
        let stopping_since = Instant::now();
        while next().await == "SIGTERM"
            && first == "SIGTERM"
            && stopping_since.elapsed() < SAME_WITHIN
        {}
        tracing::warn!("second signal: ended without finishing");
        std::process::exit(1);
    });
    Ok(token)
}
