//! The time of day, as the contract writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A source of time: the system's clock, or in tests of whole schedules a clock that follows the runtime's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// A moment of the runtime's time and its Unix milliseconds. `None` asks the system.
    began: Option<(Instant, u64)>,
}

impl Clock {
    /// A clock that begins at `unix_ms` and goes as the runtime's time goes, which may be paused.
    pub fn of_runtime(unix_ms: u64) -> Self {
        Self { began: Some((Instant::now(), unix_ms)) }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(self) -> u64 {
        match self.began {
            None => now_ms(),
            Some((began, unix_ms)) => unix_ms + began.elapsed().as_millis() as u64,
        }
    }
}

/// Milliseconds since 1970, by the system's clock.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
