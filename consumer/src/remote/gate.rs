//! [`Gate`]: the one point at which a call waits for its turn: for the end of a pause that the endpoint asked for, and
//! for a closed circuit.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_schemas::CircuitState;
use tokio::{sync::watch, time::Instant};

use super::breaker::{Breaker, Permission};

/// Lets calls through. Shared by all jobs of a worker.
#[derive(Debug)]
pub struct Gate {
    inner: Mutex<Inner>,
    /// Counts the changes, for those that wait.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    paused_until: Option<Instant>,
}

/// The turn of one call. Dropped without a report, it says nothing of the endpoint.
#[derive(Debug)]
pub struct Turn<'a> {
    gate: &'a Gate,
    is_probe: bool,
    is_reported: bool,
}

/// The verdict of a call on the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// It fails.
    Failing,
    /// Nothing.
    Unknown,
}

impl Gate {
    /// An open gate, whose circuit opens after so many failures for so long.
    pub fn new(failures_max: u32, open_for: Duration) -> Self {
        let inner = Inner { breaker: Breaker::new(failures_max, open_for), paused_until: None };
        Self { inner: Mutex::new(inner), changes: watch::Sender::new(0) }
    }

    /// Waits for a turn; the second value says whether it had to. It may be dropped at any time.
    pub async fn turn(&self) -> (Turn<'_>, bool) {
        let mut changes = self.changes.subscribe();
        let mut waited = false;
        loop {
            let until = match self.ask(Instant::now()) {
                Ok(is_probe) => {
                    return (Turn { gate: self, is_probe, is_reported: false }, waited);
                }
                Err(until) => until,
            };
            waited = true;
            tokio::select! {
                () = sleep_until(until) => {}
                // The sender lives in `self`.
                _ = changes.changed() => {}
            }
        }
    }

    /// The state of the circuit, and until when it is open.
    pub fn circuit(&self) -> (CircuitState, Option<Instant>) {
        self.inner().breaker.state(Instant::now())
    }

    /// Hears of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the turn is a probe; or until when to wait, if that is known.
    fn ask(&self, now: Instant) -> Result<bool, Option<Instant>> {
        let mut inner = self.inner();
        if let Some(until) = inner.paused_until.filter(|until| now < *until) {
            return Err(Some(until));
        }
        match inner.breaker.ask(now) {
            Permission::Call => Ok(false),
            Permission::Probe => Ok(true),
            Permission::NotBefore(until) => Err(Some(until)),
            Permission::AfterProbe => Err(None),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether this call decides whether others follow. A job is not to lose an attempt by it.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Reports what the call says of the endpoint, and how long the endpoint asks its callers to pause.
    pub fn ended(mut self, verdict: Verdict, pause: Option<Duration>) {
        self.is_reported = true;
        let now = Instant::now();
        let mut inner = self.gate.inner();
        match verdict {
            Verdict::Alive => inner.breaker.succeeded(),
            Verdict::Failing => inner.breaker.failed(now),
            Verdict::Unknown if self.is_probe => inner.breaker.undecided(now),
            Verdict::Unknown => {}
        }
        if let Some(pause) = pause {
            inner.paused_until = inner.paused_until.max(Some(now + pause));
        }
        drop(inner);
        self.gate.changes.send_modify(|changes| *changes += 1);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_reported {
            self.gate.inner().breaker.undecided(Instant::now());
            self.gate.changes.send_modify(|changes| *changes += 1);
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_up_all_calls_and_then_none() {
        let gate = Gate::new(5, OPEN);
        let (turn, waited) = gate.turn().await;
        assert!(!waited);
        turn.ended(Verdict::Alive, Some(Duration::from_secs(3)));
        let began = Instant::now();
        let (_, waited) = gate.turn().await;
        assert!(waited && began.elapsed() >= Duration::from_secs(3));
        assert!(gate.turn().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_lets_one_call_try_and_the_others_after_it() {
        let gate = Gate::new(1, OPEN);
        gate.turn().await.0.ended(Verdict::Failing, None);
        assert_eq!(gate.circuit().0, CircuitState::Open);
        assert!(gate.turn().now_or_never().is_none());
        let (probe, _) = gate.turn().await;
        assert!(probe.is_probe());
        assert!(gate.turn().now_or_never().is_none(), "others wait for its end");
        // One that was dropped says nothing, and another tries.
        drop(probe);
        let (probe, _) = gate.turn().await;
        assert!(probe.is_probe());
        let waits = gate.turn();
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        probe.ended(Verdict::Alive, None);
        assert!(!waits.await.0.is_probe());
        assert_eq!(gate.circuit(), (CircuitState::Closed, None));
    }
}
