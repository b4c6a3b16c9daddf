//! The circuit breaker: after some failures one after the other the endpoint is left alone for a while; then one call
//! tries whether it is back. Pure.

use std::time::Duration;

use forebay_schemas::CircuitState;
use tokio::time::Instant;

/// Whether the endpoint is called.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    open_for: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many calls have failed since one did not.
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is under way.
    Probing,
}

/// The permission to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// A call.
    Call,
    /// A call that decides whether others follow.
    Probe,
    /// None before then.
    NotBefore(Instant),
    /// None before the call under way has ended.
    AfterProbe,
}

impl Breaker {
    /// A closed one, which so many failures open for so long.
    pub fn new(failures_max: u32, open_for: Duration) -> Self {
        Self { failures_max, open_for, state: State::Closed { failures: 0 } }
    }

    /// Asks for a call. With [`Permission::Probe`] others wait until the end of this one is reported.
    pub fn ask(&mut self, now: Instant) -> Permission {
        match self.state {
            State::Closed { .. } => Permission::Call,
            State::Open { until } if now < until => Permission::NotBefore(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Permission::Probe
            }
            State::Probing => Permission::AfterProbe,
        }
    }

    /// The endpoint answered.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The endpoint failed.
    pub fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.failures_max => {
                State::Closed { failures: failures + 1 }
            }
            // Calls that were under way when it opened don't keep it open for longer.
            State::Open { until } => State::Open { until },
            State::Closed { .. } | State::Probing => State::Open { until: now + self.open_for },
        };
    }

    /// A probe ended and says nothing of the endpoint: the next one may try.
    pub fn undecided(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open { until: now };
        }
    }

    /// Its state, and until when it is open.
    pub fn state(&self, now: Instant) -> (CircuitState, Option<Instant>) {
        match self.state {
            State::Closed { .. } => (CircuitState::Closed, None),
            State::Open { until } if now < until => (CircuitState::Open, Some(until)),
            State::Open { .. } | State::Probing => (CircuitState::HalfOpen, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, OPEN);
        for _ in 0..3 {
            assert_eq!(breaker.ask(now), Permission::Call);
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn failures_one_after_the_other_open_it_and_a_success_between_starts_over() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, OPEN);
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert_eq!(breaker.state(now), (CircuitState::Closed, None));
        let mut breaker = opened(now);
        assert_eq!(breaker.state(now), (CircuitState::Open, Some(now + OPEN)));
        assert_eq!(breaker.ask(now), Permission::NotBefore(now + OPEN));
    }

    #[test]
    fn after_its_time_one_call_alone_tries() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + OPEN;
        assert_eq!(breaker.state(later).0, CircuitState::HalfOpen);
        assert_eq!(breaker.ask(later), Permission::Probe);
        assert_eq!(breaker.ask(later), Permission::AfterProbe);
        breaker.failed(later);
        assert_eq!(breaker.ask(later), Permission::NotBefore(later + OPEN));
        let last = later + OPEN;
        assert_eq!(breaker.ask(last), Permission::Probe);
        breaker.undecided(last);
        assert_eq!(breaker.ask(last), Permission::Probe, "another one tries");
        breaker.succeeded();
        assert_eq!(breaker.ask(last), Permission::Call);
    }

    #[test]
    fn calls_that_were_under_way_keep_it_open_for_no_longer() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now + OPEN / 2);
        assert_eq!(breaker.ask(now + OPEN), Permission::Probe);
    }
}
