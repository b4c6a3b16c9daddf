//! Exponential back-off with a cap and jitter: how long to wait before the next try.

use std::time::Duration;

use crate::rng;

/// Pauses that grow from try to try. The jitter keeps a fleet that lost its broker from reconnecting as one wave.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// Starts at `min`, doubles, never exceeds `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, tries: 0 }
    }

    /// The next pause: between half of the step and all of it.
    pub fn next_pause(&mut self) -> Duration {
        // 2^20 times the smallest useful step is beyond every cap.
        let step = self.min.saturating_mul(1 << self.tries.min(20)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        step.mul_f64(rng::uniform(0.5..=1.0))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_over() {
        let min = Duration::from_millis(100);
        let max = Duration::from_secs(2);
        let mut backoff = Backoff::new(min, max);
        for exponent in 0..100_u32 {
            let step = min.saturating_mul(1 << exponent.min(20)).min(max);
            let pause = backoff.next_pause();
            assert!(pause >= step / 2 && pause <= step, "{exponent}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= min);
    }

    #[test]
    fn those_that_lost_their_broker_together_do_not_return_together() {
        rng::seed(1);
        let max = Duration::from_secs(2);
        let pauses: Vec<Duration> = (0..100).map(|_| Backoff::new(max, max).next_pause()).collect();
        let least = pauses.iter().min().unwrap();
        let most = pauses.iter().max().unwrap();
        assert!(*most > *least + max / 3, "all between {least:?} and {most:?}");
    }
}
