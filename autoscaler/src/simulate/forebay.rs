//! Forebay's own policy in the simulator: the decision that the service takes, from what the service would see.

use super::fleet::{Change, Fleet, Scaler};
use crate::policy::{self, Backlog, Memory, Observed, Phase, PoolPolicy, Why, WorkerSeen};

/// The service looks about once a second.
const TICK_US: u64 = 1_000_000;

/// Is told the time in microseconds, the size wanted, and why.
pub type Tell = Box<dyn FnMut(u64, u32, &Why)>;

/// Calls [`policy::decide`] each second, and at once when a job arrives at a fleet of none.
pub struct Forebay {
    policy: PoolPolicy,
    memory: Memory,
    next_us: u64,
    /// Kept between looks, so that a day of them allocates little.
    seen: Observed,
    told: Option<Tell>,
}

impl Forebay {
    /// With a fresh memory.
    pub fn new(policy: PoolPolicy) -> Self {
        let backlog = Some(Backlog { ready: 0, unacknowledged: 0, arrived_total: 0 });
        let seen = Observed { now_ms: 0, backlog, workers: Vec::new() };
        Self { policy, memory: Memory::new(), next_us: 0, seen, told: None }
    }

    /// Tells each change of size.
    #[must_use]
    pub fn telling(mut self, told: Tell) -> Self {
        self.told = Some(told);
        self
    }

    fn observe(&mut self, fleet: &Fleet<'_>) {
        let (now_us, seen) = (fleet.now_us, &mut self.seen);
        seen.now_ms = now_us / 1_000;
        let unacknowledged = fleet.in_service();
        seen.backlog =
            Some(Backlog { ready: fleet.ready(), unacknowledged, arrived_total: fleet.arrived() });
        seen.workers.truncate(fleet.workers.len());
        for (at, worker) in fleet.workers.iter().enumerate() {
            if seen.workers.get(at).is_none_or(|known| known.id != worker.id) {
                let fresh = WorkerSeen { id: worker.id.clone(), ..WorkerSeen::default() };
                if at < seen.workers.len() {
                    seen.workers[at] = fresh;
                } else {
                    seen.workers.push(fresh);
                }
            }
            let current_us = worker.job_us.map_or(0, |(begun_us, _)| now_us - begun_us);
            let shown = &mut seen.workers[at];
            shown.phase = worker.phase;
            shown.age_ms = (now_us - worker.launched_us.min(now_us)) / 1_000;
            shown.in_flight = u64::from(worker.job_us.is_some());
            shown.jobs_done = worker.jobs_done;
            shown.busy_ms = (worker.busy_us + current_us) / 1_000;
            let cold_start_ms = (worker.ready_us - worker.launched_us) / 1_000;
            shown.cold_start_ms = (worker.phase != Phase::Starting).then_some(cold_start_ms);
        }
    }
}

impl Scaler for Forebay {
    fn next_look_us(&self) -> u64 {
        self.next_us
    }

    fn wakes_on_arrival(&self) -> bool {
        true
    }

    fn look(&mut self, fleet: &Fleet<'_>) -> Change {
        if fleet.now_us >= self.next_us {
            self.next_us = fleet.now_us + TICK_US;
        }
        self.observe(fleet);
        let decision = policy::decide(&self.policy, &mut self.memory, &self.seen);
        let moves = decision.launch > 0 || !decision.drain.is_empty();
        if let Some(told) = self.told.as_mut().filter(|_| moves) {
            told(fleet.now_us, decision.wanted, &decision.why);
        }
        Change::Moves { wanted: decision.wanted, launch: decision.launch, drain: decision.drain }
    }
}
