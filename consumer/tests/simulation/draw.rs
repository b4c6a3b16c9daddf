//! Numbers and times that a schedule is drawn with.

use std::time::Duration;

use forebay_fabric::rng;

pub fn below(n: usize) -> usize {
    rng::uniform(0.0..=n as f64 - 1e-9) as usize
}

pub fn within(from: Duration, to: Duration) -> Duration {
    Duration::from_secs_f64(rng::uniform(from.as_secs_f64()..=to.as_secs_f64()))
}
