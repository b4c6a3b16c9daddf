//! Waiting for a condition until a deadline.

use std::time::{Duration, Instant};

/// Long enough for one look at a local server, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(20);

/// For what takes a moment on an idle machine; generous, because the machine may be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// For what takes seconds on an idle machine: a start, a backlog.
pub const PATIENT: Duration = Duration::from_secs(90);

/// Asks `probe` until it answers `Some`, and panics with `what` when that takes longer than `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks `holds` until it says yes, and panics with `what` when that takes longer than `limit`.
pub async fn until_true(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    until(what, limit, async || holds().await.then_some(())).await;
}

/// Whether `holds` says yes within `limit`: for callers that have more to report than a panic.
pub async fn holds_within(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let started = Instant::now();
    while !holds().await {
        if started.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}

/// Waits until `moment`. Only for what is about time itself, as a slow link or a schedule is.
pub async fn at(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
