//! The decision: the size of every pool, the workers that leave and their order, and the device slots of new ones.
//!
//! [`decide`] is a pure function of the configuration, the observation and a bounded history of earlier ones. It knows
//! no clock, no broker and no launcher; the running service and the simulator call it alike. It takes four steps: the
//! size that each pool's load asks for (`size`), the division of the device slots (`share`), the workers that leave
//! (`victims`), and the launches that slots and circuit allow (`slots`, `circuit`). The rules and their reasons are in
//! `docs/scaling.md`. Rates and cold starts are measured in `history`, the work of models that generate text in
//! `tokens`, gaps between bursts are learned in `bursts`.

mod bursts;
mod circuit;
mod demand;
mod history;
mod measured;
mod policy;
mod seen;
mod share;
mod size;
mod slots;
#[cfg(test)]
mod tests;
mod tokens;
mod victims;
mod why;

pub use circuit::Circuit;
pub use history::History;
pub use policy::{PoolPolicy, Timeouts};
pub use seen::{Answer, Backlog, Generating, Phase, PoolSeen, WorkerSeen, active, count};
use share::{Claim, share};
pub use slots::DeviceSlots;
pub use victims::{Ends, Overdue, is_doubted, overdue};
pub use why::{Code, Why};

/// One pool to decide on.
pub struct PoolInput<'a> {
    /// How it is to be run.
    pub policy: PoolPolicy,
    /// Its queues and workers now.
    pub seen: &'a PoolSeen,
    /// Holds its launches back while they fail.
    pub circuit: &'a Circuit,
    /// Its load so far; this decision is added to it.
    pub history: &'a mut History,
}

/// The actions for the workers of one pool, in the order in which they are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Workers to end at once.
    pub end: Vec<Overdue>,
    /// Workers to drain.
    pub drain: Vec<String>,
    /// The devices of the workers to launch, one each.
    pub launch: Vec<String>,
}

impl Moves {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.end.is_empty() && self.drain.is_empty() && self.launch.is_empty()
    }
}

/// The decision on one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The size that its load asks for: starting and ready workers, draining ones left out.
    pub wanted: u32,
    /// The size that it gets of the device slots.
    pub granted: u32,
    /// The actions to take now.
    pub moves: Moves,
    /// Why, as a code and numbers; `Display` says it in a sentence.
    pub why: Why,
}

/// Decides on all pools that share the same device slots. The decisions are in the order of the pools.
///
/// A pool whose queues could not be observed keeps its workers, whatever its policy says; only overdue ones are ended.
/// Nothing is done about a pool whose launcher is still at what was decided before.
pub fn decide(
    pools: &mut [PoolInput<'_>],
    slots: &mut DeviceSlots,
    timeouts: &Timeouts,
) -> Vec<Decision> {
    let sizes: Vec<size::Size> =
        pools.iter_mut().map(|pool| size::size(&pool.policy, pool.history, pool.seen)).collect();
    let claims: Vec<Claim> =
        pools.iter().zip(&sizes).map(|(pool, size)| claim(pool, size)).collect();
    let grants = share(&claims, slots.total());
    let decided = pools.iter_mut().zip(sizes).zip(grants);
    decided.map(|((pool, size), granted)| moves(pool, size, granted, slots, timeouts)).collect()
}

/// The claim of a pool to slots.
fn claim(pool: &PoolInput<'_>, size: &size::Size) -> Claim {
    Claim {
        priority: pool.policy.priority,
        min: pool.policy.workers_min.min(size.wanted),
        wanted: size.wanted,
        active: active(&pool.seen.workers),
    }
}

/// From the size that was granted to the workers that end, leave and are launched.
fn moves(
    pool: &mut PoolInput<'_>,
    size: size::Size,
    granted: u32,
    slots: &mut DeviceSlots,
    timeouts: &Timeouts,
) -> Decision {
    let workers = &pool.seen.workers;
    let mut end = overdue(workers, timeouts, pool.seen.now_ms, &mut pool.history.ends);
    let mut drain = size.drain;
    victims::fit(workers, granted, &mut drain);
    let staying = active(workers) - drain.len() as u32;
    // Slots stay reserved for launches that the circuit holds back: the next look may allow them.
    let mut launch = slots.take(granted.saturating_sub(staying) as usize);
    let starting = count(workers, Phase::Starting);
    let allowed = pool.circuit.allows(pool.seen.now_ms, launch.len() as u32, starting);
    launch.truncate(allowed as usize);
    if pool.seen.backlog.is_none() || pool.seen.acting {
        drain.clear();
        launch.clear();
    }
    if pool.seen.acting {
        end.clear();
    }
    let moves = Moves { end, drain, launch };
    Decision { wanted: size.wanted, granted, moves, why: size.why }
}

/// The moves for workers that all are to leave, whatever waits in a queue: they are drained, and ended when that takes
/// too long.
pub fn leave(workers: &[WorkerSeen], timeouts: &Timeouts) -> Moves {
    let end = victims::drained_too_long(workers, timeouts).collect();
    let mut drain = Vec::new();
    victims::fit(workers, 0, &mut drain);
    Moves { end, drain, launch: Vec::new() }
}
