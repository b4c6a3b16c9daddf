//! The circuit breaker of a pool's launches: pauses that grow while launches fail, and one try at a time.

/// Failures in a row after which the circuit counts as open.
pub const FAILURES_MAX: u32 = 3;
/// The first pause, in milliseconds; each failure doubles it.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause: one try a minute costs nothing, and what was mended is found soon.
const PAUSE_MS_MAX: u64 = 60_000;

/// The circuit breaker of one pool's launches.
#[derive(Debug, Default, Clone)]
pub struct Circuit {
    failures: u32,
    /// When the next try may be made.
    again_at_ms: u64,
    /// The failure that came last.
    reason: Option<String>,
}

impl Circuit {
    /// Records that a launch failed, or that a worker ended before it was ready.
    pub fn failed(&mut self, now_ms: u64, reason: String) {
        // Those that were launched together fail together: that is one failure.
        if now_ms < self.again_at_ms {
            self.reason = Some(reason);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(16);
        self.again_at_ms = now_ms + (PAUSE_MS_MIN << doublings).min(PAUSE_MS_MAX);
        self.reason = Some(reason);
    }

    /// Records that a worker has shown that it works: the circuit closes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether launches have failed too often in a row.
    pub fn is_open(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// How many of `asked` launches may be made now, with as many `starting` already: all while nothing has failed, one
    /// at a time after a failure, none during a pause.
    pub fn allows(&self, now_ms: u64, asked: u32, starting: u32) -> u32 {
        match self.failures {
            0 => asked,
            _ if now_ms < self.again_at_ms || starting > 0 => 0,
            _ => asked.min(1),
        }
    }

    /// The last failure and the time of the next try, for people; `None` while nothing has failed.
    pub fn problem(&self, now_ms: u64) -> Option<String> {
        let reason = self.reason.as_ref()?;
        let wait_s = self.again_at_ms.saturating_sub(now_ms).div_ceil(1_000);
        let times =
            if self.failures == 1 { "once".into() } else { format!("{} times", self.failures) };
        Some(format!("launching failed {times}, the next try is in {wait_s} s: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_one_success_forgets_them() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.allows(0, 7, 3), 7);
        let mut now = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            circuit.failed(now, "no image".into());
            assert_eq!(circuit.allows(now + pause_ms - 1, 7, 0), 0, "{pause_ms}");
            assert_eq!(circuit.allows(now + pause_ms, 7, 0), 1, "{pause_ms}");
            now += pause_ms;
        }
        assert!(circuit.is_open());
        circuit.succeeded();
        assert!(!circuit.is_open() && circuit.problem(now).is_none());
        assert_eq!(circuit.allows(now, 7, 0), 7);
    }

    #[test]
    fn launches_that_fail_together_are_one_failure() {
        let mut circuit = Circuit::default();
        for n in 0..8 {
            circuit.failed(n, "no image".into());
        }
        assert!(!circuit.is_open());
        assert_eq!(circuit.allows(1_000, 8, 0), 1);
    }

    #[test]
    fn after_a_failure_one_launch_is_tried_at_a_time() {
        let mut circuit = Circuit::default();
        circuit.failed(0, "it ended with exit code 2".into());
        assert_eq!(circuit.allows(1_000, 5, 0), 1);
        assert_eq!(
            circuit.allows(1_000, 5, 1),
            0,
            "the one that was launched has not become ready yet"
        );
    }

    #[test]
    fn five_minutes_of_failures_make_few_tries() {
        let mut circuit = Circuit::default();
        let mut tries = 0;
        for now_ms in (0..300_000).step_by(500) {
            if circuit.allows(now_ms, 1, 0) > 0 {
                tries += 1;
                circuit.failed(now_ms, "the engine does not answer".into());
            }
        }
        assert!((8..=12).contains(&tries), "{tries}");
        let problem = circuit.problem(300_000).unwrap();
        assert!(problem.contains("times") && problem.contains("does not answer"), "{problem}");
    }
}
