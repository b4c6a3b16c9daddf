//! Which workers leave: which are drained, in which order, and which are ended because they take too long.

use std::cmp::Ordering;

use super::{
    policy::Timeouts,
    seen::{Capacity, Phase, WorkerSeen},
};

/// A worker that has to be ended at once, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Its name.
    pub name: String,
    /// The label of the metric: `start`, `stuck`, `drain` or `silent`.
    pub reason: &'static str,
    /// The reason for people.
    pub why: String,
}

/// The order in which workers are drained: those with the fewest jobs in flight first, and of those the newest first.
fn leaves_first(a: &WorkerSeen, b: &WorkerSeen) -> Ordering {
    (a.in_flight, a.age_ms).cmp(&(b.in_flight, b.age_ms)).then_with(|| a.id.cmp(&b.id))
}

/// The workers to drain such that `wanted` are left.
///
/// With `by_choice` nothing forces the size: then busy workers stay as long as one is idle, since they may as well work
/// off the queue, and workers that start stay unless none is wanted, since they were launched for a reason.
pub(super) fn surplus(capacity: &Capacity<'_>, wanted: u32, by_choice: bool) -> Vec<String> {
    let surplus = capacity.active().saturating_sub(wanted) as usize;
    let starting = if by_choice && wanted > 0 { &[] } else { capacity.starting.as_slice() };
    let mut candidates: Vec<&WorkerSeen> = capacity.ready.iter().chain(starting).copied().collect();
    candidates.sort_by(|a, b| leaves_first(a, b));
    let idle = candidates.iter().filter(|worker| worker.in_flight == 0).count();
    let count = if by_choice && idle > 0 { surplus.min(idle) } else { surplus };
    candidates.into_iter().take(count).map(|worker| worker.id.clone()).collect()
}

/// Adds to the workers that are drained as many others as it takes to leave no more than `granted`.
pub(super) fn fit(workers: &[WorkerSeen], granted: u32, drain: &mut Vec<String>) {
    let mut others: Vec<&WorkerSeen> = workers
        .iter()
        .filter(|worker| worker.phase != Phase::Draining && !drain.contains(&worker.id))
        .collect();
    let surplus = others.len().saturating_sub(granted as usize);
    if surplus > 0 {
        others.sort_by(|a, b| leaves_first(a, b));
        drain.extend(others[..surplus].iter().map(|worker| worker.id.clone()));
    }
}

/// The workers that take longer than they may.
pub(super) fn overdue(workers: &[WorkerSeen], timeouts: &Timeouts) -> Vec<Overdue> {
    workers.iter().filter_map(|worker| overdue_one(worker, timeouts)).collect()
}

fn overdue_one(worker: &WorkerSeen, timeouts: &Timeouts) -> Option<Overdue> {
    let overdue = |reason, why| Some(Overdue { name: worker.id.clone(), reason, why });
    let longer = |ms: Option<u64>, max_ms: u64| ms.is_some_and(|ms| ms > max_ms);
    let s = |ms: u64| ms / 1_000;
    if worker.draining_ms.is_some() {
        if longer(worker.draining_ms, timeouts.drain_ms) {
            let why = format!("has been draining for more than {} s", s(timeouts.drain_ms));
            return overdue("drain", why);
        }
        return None;
    }
    if longer(worker.stalled_ms, timeouts.stuck_ms) {
        let jobs = worker.in_flight;
        let for_s = s(worker.stalled_ms.unwrap_or_default());
        return overdue("stuck", format!("holds {jobs} jobs and made no progress for {for_s} s"));
    }
    if worker.phase == Phase::Starting && worker.age_ms > timeouts.start_ms {
        return overdue("start", format!("was not ready after {} s", s(timeouts.start_ms)));
    }
    if longer(worker.silent_ms, timeouts.silent_ms) {
        let for_s = s(timeouts.silent_ms);
        return overdue("silent", format!("has sent no heartbeat for {for_s} s"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { start_ms: 600_000, stuck_ms: 60_000, drain_ms: 120_000, silent_ms: 30_000 };

    fn ready(id: &str, in_flight: u64, age_ms: u64) -> WorkerSeen {
        WorkerSeen {
            id: id.into(),
            phase: Phase::Ready,
            in_flight,
            age_ms,
            ..WorkerSeen::default()
        }
    }

    #[test]
    fn a_smaller_grant_drains_more_workers_in_the_order_of_drains() {
        let workers = [ready("busy", 2, 1), ready("old", 0, 9), ready("new", 0, 1)];
        let mut drain = Vec::new();
        fit(&workers, 3, &mut drain);
        assert!(drain.is_empty());
        fit(&workers, 1, &mut drain);
        assert_eq!(drain, ["new", "old"]);
        let mut chosen = vec!["old".to_owned()];
        fit(&workers, 1, &mut chosen);
        assert_eq!(chosen, ["old", "new"], "a worker that was chosen already counts");
    }

    #[test]
    fn each_time_out_has_its_reason() {
        let reason = |worker: WorkerSeen| overdue_one(&worker, &TIMEOUTS).map(|one| one.reason);
        let starting = WorkerSeen { age_ms: 600_001, ..WorkerSeen::default() };
        assert_eq!(reason(starting), Some("start"));
        let worker = || ready("a", 3, 9_000_000);
        assert_eq!(reason(worker()), None);
        assert_eq!(reason(WorkerSeen { stalled_ms: Some(60_001), ..worker() }), Some("stuck"));
        assert_eq!(reason(WorkerSeen { silent_ms: Some(30_001), ..worker() }), Some("silent"));
        assert_eq!(reason(WorkerSeen { draining_ms: Some(120_001), ..worker() }), Some("drain"));
    }

    #[test]
    fn a_draining_worker_has_only_the_time_out_of_draining() {
        let worker = WorkerSeen {
            draining_ms: Some(119_000),
            stalled_ms: Some(999_000),
            silent_ms: Some(999_000),
            ..ready("a", 3, 9_000_000)
        };
        assert_eq!(overdue(&[worker], &TIMEOUTS), []);
    }
}
