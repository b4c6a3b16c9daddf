//! The size that a pool's load asks for: when it grows and to what, when it shrinks and to what.

use super::{
    history::History,
    measured::Measured,
    policy::PoolPolicy,
    seen::{Capacity, PoolSeen, active},
    victims,
    why::{Code, Why},
};

/// A new worker is launched when more than half a worker is missing.
const MISSING_MIN: f64 = 0.5;
/// The minimum interval between scale-outs, as a share of the target wait.
const GROWTH_APART: f64 = 0.25;
/// Growth is by at least this share of the pool, so that a burst is followed in a few steps,
const GROWTH_MIN: f64 = 0.3;
/// and by this share when more actions were taken than are granted.
const GROWTH_MIN_OVERSPENT: f64 = 0.6;
/// Fractional demand up to this much above a whole number of workers does not round up.
const NEEDED_SLACK: f64 = 0.3;
/// Workers that were not needed in the last quarter of the idle time leave together with those that were not needed in
/// all of it, in one action instead of several.
const TOGETHER: f64 = 0.25;

/// The size that a pool's load asks for.
pub(super) struct Size {
    /// Starting and ready workers, once those in `drain` are gone.
    pub wanted: u32,
    /// The workers to drain for it.
    pub drain: Vec<String>,
    /// Why.
    pub why: Why,
}

/// Decides on the size of one pool by its own load, as if there were device slots for all.
pub(super) fn size(policy: &PoolPolicy, history: &mut History, seen: &PoolSeen) -> Size {
    let mut size = by_load(policy, history, seen);
    // A size that rests on a part of what there is to see may grow and not shrink.
    if seen.partial && !size.drain.is_empty() {
        size.drain.clear();
        size.wanted = size.wanted.max(active(&seen.workers));
    }
    size
}

fn by_load(policy: &PoolPolicy, history: &mut History, seen: &PoolSeen) -> Size {
    let capacity = Capacity::of(seen);
    let least = policy.workers_min.min(policy.workers_max);
    let most = policy.workers_max;
    let active = capacity.active();
    let measured = history.observe(policy, seen, &capacity);
    let why = |code| Why::new(code, policy, &capacity, measured.as_ref());
    let to = |wanted, code| Size { wanted, drain: Vec::new(), why: why(code) };
    let down_to = |wanted, by_choice, code| {
        let drain = victims::surplus(&capacity, wanted, by_choice);
        Size { wanted: active - drain.len() as u32, drain, why: why(code) }
    };
    if active < least {
        return to(least, Code::BelowMinimum);
    }
    if active > most {
        return down_to(most, false, Code::AboveMaximum);
    }
    let Some(measured) = &measured else {
        return to(active, Code::NotObserved);
    };
    if seen.acting {
        return to(active, Code::Acting);
    }
    let (wanted, code) = grow(policy, history, &capacity, measured);
    let wanted = wanted.clamp(least, most);
    if wanted > active {
        // A wish that is not met yet (no slot, a launcher that fails) is one action, however often it is repeated.
        if wanted > history.asked.max(active) {
            history.acted(seen.now_ms, true);
        }
        history.asked = wanted;
        return to(wanted, code);
    }
    history.asked = active;
    if code == Code::HeldBack {
        return to(active, code);
    }
    let (wanted, code) = shrink(history, &capacity, measured);
    let wanted = wanted.clamp(least, most);
    if wanted < active {
        let size = down_to(wanted, true, code);
        if !size.drain.is_empty() {
            history.acted(seen.now_ms, false);
        }
        return size;
    }
    to(active, if wanted == least && code == Code::Idle { Code::Steady } else { code })
}

/// The size that the backlog, the arrivals and the gaps ask for, if it is greater than the present one.
fn grow(
    policy: &PoolPolicy,
    history: &mut History,
    capacity: &Capacity<'_>,
    measured: &Measured,
) -> (u32, Code) {
    let active = capacity.active();
    if active == 0 && measured.backlog_jobs > policy.activation_jobs {
        let usual = history.bursts.usual().unwrap_or(1);
        return (missing(capacity, measured).max(usual).max(1), Code::FromZero);
    }
    if measured.backlog_jobs == 0 {
        return ahead(history, active, measured);
    }
    if active == 0 {
        return (0, Code::Steady);
    }
    let missing = missing(capacity, measured).min(policy.workers_max.saturating_sub(active));
    if missing == 0 {
        return (active, Code::Steady);
    }
    let since_s = history
        .last_growth_ms
        .map_or(f64::INFINITY, |at_ms| measured.now_ms.saturating_sub(at_ms) as f64 / 1e3);
    let share = if measured.actions_in_hand < 0.0 { GROWTH_MIN_OVERSPENT } else { GROWTH_MIN };
    // The last step up to the most is always large enough.
    let step = (share * f64::from(active)).ceil() as u32;
    let small = missing < step && active + missing < policy.workers_max;
    if small || since_s < GROWTH_APART * measured.target_wait_s {
        return (active, Code::HeldBack);
    }
    (active + missing, Code::BehindTarget)
}

/// Workers that are missing.
///
/// A worker launched now is ready after a cold start, and has the target wait from then on. Until it is ready,
/// `arrivals × cold start` more jobs come; until then and for the target wait after it, the ready workers work, and
/// those that start do from when they are ready. The work that they leave is divided by the target wait. Sequences that
/// run stay where they are: they take their own worker's time, and no new worker could help with them.
fn missing(capacity: &Capacity<'_>, measured: &Measured) -> u32 {
    let cold_start_s = measured.cold_start_s;
    let target_wait_s = measured.target_wait_s;
    let until_s = cold_start_s + target_wait_s;
    let coming_s = measured.arrivals_per_s * cold_start_s / measured.jobs_per_s;
    let by_starting_s = capacity.starting.iter().map(|worker| {
        let left_s = (cold_start_s - worker.age_ms as f64 / 1e3).max(0.0);
        (until_s - left_s).max(0.0)
    });
    let taken_s = capacity.ready.iter().map(|worker| measured.taken_s(worker).min(until_s));
    let by_ready_s = capacity.ready.len() as f64 * until_s - taken_s.sum::<f64>();
    let done_s = by_ready_s + by_starting_s.sum::<f64>();
    let missing = (measured.work_s() + coming_s - done_s) / target_wait_s;
    if missing > MISSING_MIN { missing.ceil() as u32 } else { 0 }
}

/// Workers ahead of a burst that is due; once in a gap.
fn ahead(history: &mut History, active: u32, measured: &Measured) -> (u32, Code) {
    let due = history.bursts.due(measured.now_ms, measured.cold_start_s, measured.target_wait_s);
    match due {
        Some(usual) if usual > active && history.bursts.warmed_ms().is_none() => {
            history.bursts.warmed(measured.now_ms);
            (usual, Code::BurstDue)
        }
        _ => (active, Code::Steady),
    }
}

/// The size that the last minutes needed, if it is less than the present one and may be taken now.
fn shrink(history: &History, capacity: &Capacity<'_>, measured: &Measured) -> (u32, Code) {
    let active = capacity.active();
    let needed = |window_s: f64| {
        let highest = history.demand.highest(measured.now_ms, (window_s * 1e3) as u64);
        // Any work at all needs one worker.
        let least = u32::from(highest > 0.05 || measured.backlog_jobs > 0);
        ((highest - NEEDED_SLACK).ceil().max(0.0) as u32).max(least)
    };
    if needed(0.0) >= active {
        return (active, Code::Steady);
    }
    let idle_s = measured.idle_s;
    let covered = history.demand.covers(measured.now_ms, (idle_s * 1e3) as u64);
    // What waits may still need the workers that are there.
    let queue = measured.queued_jobs > 0
        && measured.work_s() / f64::from(active) > measured.target_wait_s / 4.0;
    if queue || !covered || needed(idle_s) >= active {
        return (active, Code::KeptWarm);
    }
    // A given idle time is kept, however often.
    if measured.actions_in_hand < 1.0 && !measured.idle_is_given {
        return (active, Code::TooManyActions);
    }
    // Busy workers stay, even if the last minutes could have done with fewer: a burst may just begin.
    let busy = (measured.workers_busy - NEEDED_SLACK).ceil().max(0.0) as u32;
    (needed(idle_s * TOGETHER).max(busy), Code::Idle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Phase, WorkerSeen};

    /// The size that four workers shrink to after this many were needed for a minute.
    fn shrunk(demand: f64) -> (u32, Code) {
        shrunk_while(demand, 0.0)
    }

    /// That size while so many workers are busy.
    fn shrunk_while(demand: f64, workers_busy: f64) -> (u32, Code) {
        let ready = WorkerSeen { phase: Phase::Ready, ..WorkerSeen::default() };
        let workers = [(); 4].map(|()| ready.clone());
        let capacity = Capacity {
            starting: Vec::new(),
            ready: workers.iter().collect(),
            draining_in_flight: 0,
        };
        let mut history = History::new();
        for second in 0..=60 {
            history.demand.record(second * 1_000, demand, 60_000);
        }
        let measured = Measured {
            now_ms: 60_000,
            workers_busy,
            jobs_per_s: 1.0,
            target_wait_s: 10.0,
            idle_s: 30.0,
            actions_in_hand: 1.0,
            ..Measured::default()
        };
        shrink(&history, &capacity, &measured)
    }

    #[test]
    fn a_pool_shrinks_to_whole_workers_for_all_of_its_demand() {
        assert_eq!(shrunk(1.2), (1, Code::Idle), "a little more than one worker is one");
        assert_eq!(shrunk(1.5), (2, Code::Idle));
        assert_eq!(shrunk(2.4), (3, Code::Idle));
        assert_eq!(shrunk(0.1), (1, Code::Idle), "any work at all needs one");
        assert_eq!(shrunk(0.0), (0, Code::Idle));
        assert_eq!(shrunk(3.4), (4, Code::Steady));
    }

    #[test]
    fn busy_workers_stay_also_where_the_last_minutes_needed_fewer() {
        assert_eq!(shrunk_while(0.1, 1.2), (1, Code::Idle));
        assert_eq!(shrunk_while(0.1, 1.5), (2, Code::Idle));
        assert_eq!(shrunk_while(0.1, 2.4), (3, Code::Idle));
    }
}
