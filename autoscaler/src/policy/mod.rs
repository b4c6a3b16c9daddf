//! The scaling policy: how many workers a pool should have, decided from what was seen of it.
//!
//! [`decide`] is a pure function of the policy, the observation and a bounded memory of earlier ones. It knows no clock,
//! no broker and no launcher; the running service and the simulator call the same function. What it does and why stands
//! in `docs/scaling.md`; the formulas stand in `size`, what is measured in `memory`, and what is learned of gaps
//! between bursts in `bursts`.

mod bursts;
mod demand;
mod memory;
mod size;
#[cfg(test)]
mod tests;
mod why;

use serde::Serialize;

pub use memory::Memory;
pub use why::{Code, Why};

/// How a pool is to be run, made from configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPolicy {
    /// Never fewer: 0 is serverless, 1 or more dedicated, and the same as the most is fixed.
    pub workers_min: u32,
    /// Never more. Draining workers don't count.
    pub workers_max: u32,
    /// The wait that a backlog may cost: workers are added when the backlog would take longer than that to drain.
    pub drain_s: f64,
    /// How long workers may idle; without it, until they have cost what a cold start costs, refined by observed gaps.
    pub idle_s: Option<f64>,
    /// A pool leaves zero when its backlog is above this.
    pub activation_jobs: u64,
    /// Jobs that one worker does in a second while busy, until that is measured.
    pub jobs_per_s_prior: f64,
    /// Seconds from a launch to the first job, until that is measured.
    pub cold_start_s_prior: f64,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            workers_min: 0,
            workers_max: 1,
            drain_s: 15.0,
            idle_s: None,
            activation_jobs: 0,
            jobs_per_s_prior: 10.0,
            cold_start_s_prior: 20.0,
        }
    }
}

/// The pool's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that no worker has.
    pub ready: u64,
    /// Jobs that a worker has and has not settled, prefetched ones included.
    pub unacknowledged: u64,
    /// Jobs that ever came; only its growth counts.
    pub arrived_total: u64,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Launched, and not yet taking jobs.
    #[default]
    Starting,
    /// Taking jobs.
    Ready,
    /// Finishing what it has; no capacity any more.
    Draining,
}

/// What is known of a worker. Its counters may be some seconds old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its name.
    pub id: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since its launch.
    pub age_ms: u64,
    /// Jobs that it has and has not settled.
    pub in_flight: u64,
    /// Jobs that it has settled since its launch.
    pub jobs_done: u64,
    /// Time for which it had something to do since its launch.
    pub busy_ms: u64,
    /// From its launch to its readiness, once that is known.
    pub cold_start_ms: Option<u64>,
}

/// One look at a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// On a clock that never goes back.
    pub now_ms: u64,
    /// Nothing if the queues could not be observed: then the size is held.
    pub backlog: Option<Backlog>,
    /// All workers of the pool that have not stopped.
    pub workers: Vec<WorkerSeen>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The size that the pool should have: starting and ready workers, draining ones left out.
    pub wanted: u32,
    /// Workers to launch now.
    pub launch: u32,
    /// Workers to drain now.
    pub drain: Vec<String>,
    /// Why, in a code and numbers; `Display` says it in a sentence.
    pub why: Why,
}

/// Decides the size of a pool.
pub fn decide(policy: &PoolPolicy, memory: &mut Memory, seen: &Observed) -> Decision {
    let pool = Pool::of(seen);
    let (least, most) = (policy.workers_min.min(policy.workers_max), policy.workers_max);
    let measured = memory.observe(policy, seen, &pool);
    let why = |code| Why::new(code, policy, &pool, measured.as_ref());
    if pool.active() < least {
        return launch(&pool, least, why(Code::BelowMinimum));
    }
    if pool.active() > most {
        return drain(&pool, most, false, why(Code::AboveMaximum));
    }
    let Some(measured) = &measured else {
        return hold(&pool, why(Code::NotObserved));
    };
    let (wanted, code) = size::grow(policy, memory, &pool, measured);
    let wanted = wanted.clamp(least, most);
    if wanted > pool.active() {
        // A wish that is not met yet (no place, a launcher that fails) is one action, however often it is said.
        if wanted > memory.asked.max(pool.active()) {
            memory.acted(seen.now_ms, true);
        }
        memory.asked = wanted;
        return launch(&pool, wanted, why(code));
    }
    memory.asked = pool.active();
    if code == Code::HeldBack {
        return hold(&pool, why(code));
    }
    let (wanted, code) = size::shrink(memory, &pool, measured);
    let wanted = wanted.clamp(least, most);
    if wanted < pool.active() {
        let decision = drain(&pool, wanted, true, why(code));
        if !decision.drain.is_empty() {
            memory.acted(seen.now_ms, false);
        }
        return decision;
    }
    hold(&pool, why(if wanted == least && code == Code::Idle { Code::Steady } else { code }))
}

/// The workers by what they can do.
struct Pool<'a> {
    starting: Vec<&'a WorkerSeen>,
    ready: Vec<&'a WorkerSeen>,
    draining_in_flight: u64,
}

impl<'a> Pool<'a> {
    fn of(seen: &'a Observed) -> Self {
        let of_phase = |phase| seen.workers.iter().filter(move |worker| worker.phase == phase);
        Self {
            starting: of_phase(Phase::Starting).collect(),
            ready: of_phase(Phase::Ready).collect(),
            draining_in_flight: of_phase(Phase::Draining).map(|worker| worker.in_flight).sum(),
        }
    }

    fn active(&self) -> u32 {
        (self.starting.len() + self.ready.len()) as u32
    }
}

fn hold(pool: &Pool<'_>, why: Why) -> Decision {
    Decision { wanted: pool.active(), launch: 0, drain: Vec::new(), why }
}

fn launch(pool: &Pool<'_>, wanted: u32, why: Why) -> Decision {
    Decision { wanted, launch: wanted - pool.active(), drain: Vec::new(), why }
}

/// Drains down to `wanted`: what has nothing in flight goes first, the newest of it first, then what has least.
///
/// `by_choice`, nothing forces the size: then busy workers stay as long as one is idle, since they may as well drain the
/// queue, and workers that start stay unless none is wanted, since they were launched for a reason.
fn drain(pool: &Pool<'_>, wanted: u32, by_choice: bool, why: Why) -> Decision {
    let surplus = (pool.active() - wanted) as usize;
    let starting = if by_choice && wanted > 0 { &[] } else { pool.starting.as_slice() };
    let mut candidates: Vec<&WorkerSeen> = pool.ready.iter().chain(starting).copied().collect();
    candidates.sort_by(|a, b| {
        (a.in_flight, a.age_ms).cmp(&(b.in_flight, b.age_ms)).then_with(|| a.id.cmp(&b.id))
    });
    let idle = candidates.iter().filter(|worker| worker.in_flight == 0).count();
    let count = if by_choice && idle > 0 { surplus.min(idle) } else { surplus };
    let drain: Vec<String> =
        candidates.into_iter().take(count).map(|worker| worker.id.clone()).collect();
    Decision { wanted: pool.active() - drain.len() as u32, launch: 0, drain, why }
}
