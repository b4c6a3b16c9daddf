//! The formulas: when a pool grows and to what, when it shrinks and to what.

use super::{Memory, Pool, PoolPolicy, memory::Measured, why::Code};

/// A new worker is launched when at least half of one is missing.
const MISSING_MIN: f64 = 0.5;
/// Growth comes no sooner after growth than this share of the target: what is waited for may as well come together.
const GROWTH_APART: f64 = 0.25;
/// Growth is by at least this share of the pool, so that a burst is followed in a few steps,
const GROWTH_MIN: f64 = 0.3;
/// and by this share when more actions were taken than are granted.
const GROWTH_MIN_OVERSPENT: f64 = 0.6;
/// What is this far above a whole number of workers asks for no worker more.
const NEEDED_SLACK: f64 = 0.3;
/// What nobody needed in the last quarter of the idle time goes together with what nobody needed in all of it, in one
/// action instead of several.
const TOGETHER: f64 = 0.25;

/// The size that the backlog, the arrivals and the gaps ask for, if it is greater than the present one.
pub(super) fn grow(
    policy: &PoolPolicy,
    memory: &mut Memory,
    pool: &Pool<'_>,
    measured: &Measured,
) -> (u32, Code) {
    let active = pool.active();
    if active == 0 && measured.backlog_jobs > policy.activation_jobs {
        let usual = memory.bursts.usual().unwrap_or(1);
        return (missing(pool, measured).max(usual).max(1), Code::FromZero);
    }
    if measured.backlog_jobs == 0 {
        return ahead(memory, active, measured);
    }
    if active == 0 {
        return (0, Code::Steady);
    }
    let missing = missing(pool, measured).min(policy.workers_max.saturating_sub(active));
    if missing == 0 {
        return (active, Code::Steady);
    }
    let since_s = memory
        .last_growth_ms
        .map_or(f64::INFINITY, |at_ms| measured.now_ms.saturating_sub(at_ms) as f64 / 1e3);
    let share = if measured.actions_in_hand < 0.0 { GROWTH_MIN_OVERSPENT } else { GROWTH_MIN };
    // The last step up to the most is always large enough.
    let step = (share * f64::from(active)).ceil() as u32;
    let small = missing < step && active + missing < policy.workers_max;
    if small || since_s < GROWTH_APART * measured.drain_s {
        return (active, Code::HeldBack);
    }
    (active + missing, Code::BehindTarget)
}

/// Workers that are missing.
///
/// A worker launched now begins in a cold start and has the target from then on. Until then there come `arrivals ×
/// cold start` jobs more; up to then, and for the target after it, the workers that are there work, and those that start
/// from when they are ready. What they leave is divided by the target.
fn missing(pool: &Pool<'_>, measured: &Measured) -> u32 {
    let (cold_start_s, drain_s) = (measured.cold_start_s, measured.drain_s);
    let until_s = cold_start_s + drain_s;
    let coming_s = measured.arrivals_per_s * cold_start_s / measured.jobs_per_s;
    let by_starting_s = pool.starting.iter().map(|worker| {
        let left_s = (cold_start_s - worker.age_ms as f64 / 1e3).max(0.0);
        (until_s - left_s).max(0.0)
    });
    let done_s = pool.ready.len() as f64 * until_s + by_starting_s.sum::<f64>();
    let missing = (measured.work_s() + coming_s - done_s) / drain_s;
    if missing > MISSING_MIN { missing.ceil() as u32 } else { 0 }
}

/// Workers ahead of a burst that is due; once in a gap.
fn ahead(memory: &mut Memory, active: u32, measured: &Measured) -> (u32, Code) {
    let due = memory.bursts.due(measured.now_ms, measured.cold_start_s, measured.drain_s);
    match due {
        Some(usual) if usual > active && memory.bursts.warmed_ms().is_none() => {
            memory.bursts.warmed(measured.now_ms);
            (usual, Code::BurstDue)
        }
        _ => (active, Code::Steady),
    }
}

/// The size that the last minutes needed, if it is less than the present one and may be taken now.
pub(super) fn shrink(memory: &Memory, pool: &Pool<'_>, measured: &Measured) -> (u32, Code) {
    let active = pool.active();
    let needed = |window_s: f64| {
        let highest = memory.demand.highest(measured.now_ms, (window_s * 1e3) as u64);
        // Something to do needs someone, however little it is.
        let least = u32::from(highest > 0.05 || measured.backlog_jobs > 0);
        ((highest - NEEDED_SLACK).ceil().max(0.0) as u32).max(least)
    };
    if needed(0.0) >= active {
        return (active, Code::Steady);
    }
    let idle_s = measured.idle_s;
    let covered = memory.demand.covers(measured.now_ms, (idle_s * 1e3) as u64);
    // What waits may still need the workers that are there.
    let queue =
        measured.queued_jobs > 0 && measured.work_s() / f64::from(active) > measured.drain_s / 4.0;
    if queue || !covered || needed(idle_s) >= active {
        return (active, Code::KeptWarm);
    }
    // A given idle time is kept, however often.
    if measured.actions_in_hand < 1.0 && !measured.idle_is_given {
        return (active, Code::TooManyActions);
    }
    // Who is busy right now stays, even if the last minutes could have done without: a burst may just begin.
    let busy = (measured.workers_busy - NEEDED_SLACK).ceil().max(0.0) as u32;
    (needed(idle_s * TOGETHER).max(busy), Code::Idle)
}
