//! Forebay's own policy in the simulator: the decision that the service takes, from what the service would see.

use super::fleet::{Change, Scaler, SimulatedFleet};
use crate::decide::{
    self, Backlog, Circuit, DeviceSlots, History, Phase, PoolInput, PoolPolicy, PoolSeen, Timeouts,
    Why, WorkerSeen,
};

/// The service looks every half second by default; here it is once a second.
const TICK_US: u64 = 1_000_000;

/// Called at each change of size with the time in microseconds, the size wanted, and why.
pub type Explain = Box<dyn FnMut(u64, u32, &Why)>;

/// Calls [`decide::decide`] each second, and at once when a job arrives at a fleet of none. Its one pool has device
/// slots for all of its workers, its launches never fail, and its workers are never overdue.
pub struct Forebay {
    policy: PoolPolicy,
    history: History,
    circuit: Circuit,
    slots: DeviceSlots,
    next_us: u64,
    /// Kept between looks, so that a day of them allocates little.
    seen: PoolSeen,
    explain: Option<Explain>,
    counts_tokens: bool,
}

impl Forebay {
    /// Begins with an empty history.
    pub fn new(policy: PoolPolicy) -> Self {
        Self {
            policy,
            history: History::new(),
            circuit: Circuit::default(),
            slots: DeviceSlots::unlimited("cpu"),
            next_us: 0,
            seen: PoolSeen::default(),
            explain: None,
            counts_tokens: true,
        }
    }

    /// Leaves out what workers report of tokens: the jobs of generators are counted as those of encoders are.
    #[must_use]
    pub fn by_messages(mut self) -> Self {
        self.counts_tokens = false;
        self
    }

    /// Reports each change of size.
    #[must_use]
    pub fn explaining(mut self, explain: Explain) -> Self {
        self.explain = Some(explain);
        self
    }

    fn observe(&mut self, fleet: &SimulatedFleet<'_>) {
        let now_us = fleet.now_us;
        let seen = &mut self.seen;
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
            let shown = &mut seen.workers[at];
            shown.phase = worker.phase;
            shown.age_ms = (now_us - worker.launched_us.min(now_us)) / 1_000;
            shown.in_flight = worker.jobs() as u64;
            shown.jobs_done = worker.jobs_done;
            shown.busy_ms = worker.busy_us / 1_000;
            let cold_start_ms = (worker.ready_us - worker.launched_us) / 1_000;
            shown.generates = if self.counts_tokens { worker.generating() } else { None };
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

    fn look(&mut self, fleet: &SimulatedFleet<'_>) -> Change {
        if fleet.now_us >= self.next_us {
            self.next_us = fleet.now_us + TICK_US;
        }
        self.observe(fleet);
        let input = PoolInput {
            policy: self.policy.clone(),
            seen: &self.seen,
            circuit: &self.circuit,
            history: &mut self.history,
        };
        let decisions = decide::decide(&mut [input], &mut self.slots, &Timeouts::NONE);
        let Some(decision) = decisions.into_iter().next() else { return Change::Hold };
        let moves = decision.moves;
        if let Some(explain) = self.explain.as_mut().filter(|_| !moves.is_empty()) {
            explain(fleet.now_us, decision.granted, &decision.why);
        }
        let launch = moves.launch.len() as u32;
        Change::Moves { wanted: decision.granted, launch, drain: moves.drain }
    }
}
