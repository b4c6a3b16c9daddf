//! Which workers leave: which are drained, in which order, and which are ended because they take too long.

use std::cmp::Ordering;

use super::{
    policy::Timeouts,
    seen::{Answer, Capacity, Phase, WorkerSeen},
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

/// The order in which workers are drained: idle ones first, then those with the least to lose, and of those the newest.
///
/// An encoder finishes what it holds, so what it loses is the time for its jobs in flight. A generator that drains
/// writes a checkpoint and gives its jobs back: the others compute the pages of its running sequences once more, one
/// prefill a sequence, and the jobs that wait in it lose nothing.
fn leaves_first(a: &WorkerSeen, b: &WorkerSeen) -> Ordering {
    let loses = |worker: &WorkerSeen| {
        let pages_held = worker.generates.map_or(0, |generates| generates.pages_held);
        (worker.in_flight > 0, pages_held, worker.in_flight, worker.age_ms)
    };
    loses(a).cmp(&loses(b)).then_with(|| a.id.cmp(&b.id))
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

/// Of a pool at most this share is ended within [`ENDS_APART_MS`] for doubt, and one worker at least: what makes one of
/// them look lost may as well be the way on which they are observed.
const DOUBTED_SHARE: u32 = 10;
/// In this while, in milliseconds, what was ended is replaced, and a fault of the observation is over or seen as one.
const ENDS_APART_MS: u64 = 30_000;

/// The workers that were ended for doubt in the last [`ENDS_APART_MS`]. No more than the share of a pool are.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    lately: Vec<(u64, String)>,
}

impl Ends {
    /// Whether `id` may be ended now where at most `most` may be, and remembers it. One that was ended before is
    /// ended again: that may have failed.
    fn allow(&mut self, now_ms: u64, id: &str, most: usize) -> bool {
        self.lately.retain(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < ENDS_APART_MS);
        if self.lately.iter().any(|(_, ended)| ended == id) {
            return true;
        }
        let allowed = self.lately.len() < most;
        if allowed {
            self.lately.push((now_ms, id.to_owned()));
        }
        allowed
    }
}

/// The workers to end because they take longer than they may. Those that drain have had their time. Of the others,
/// which are ended for doubt, only a share may be, those first that are over their time for longest.
pub fn overdue(
    workers: &[WorkerSeen],
    timeouts: &Timeouts,
    now_ms: u64,
    ends: &mut Ends,
) -> Vec<Overdue> {
    let mut doubted: Vec<(u64, Overdue)> =
        workers.iter().filter_map(|worker| doubt(worker, timeouts)).collect();
    doubted.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.name.cmp(&other.name)));
    let most = (workers.len() / DOUBTED_SHARE as usize).max(1);
    let doubted = doubted.into_iter().map(|(_, overdue)| overdue);
    let ended = doubted.filter(|overdue| ends.allow(now_ms, &overdue.name, most));
    drained_too_long(workers, timeouts).chain(ended).collect()
}

/// The workers that have been draining for longer than they may.
pub(super) fn drained_too_long<'a>(
    workers: &'a [WorkerSeen],
    timeouts: &'a Timeouts,
) -> impl Iterator<Item = Overdue> + 'a {
    let max_ms = timeouts.drain_ms;
    let late = move |worker: &&WorkerSeen| worker.draining_ms.is_some_and(|ms| ms > max_ms);
    workers.iter().filter(late).map(move |worker| Overdue {
        name: worker.id.clone(),
        reason: "drain",
        why: format!("has been draining for more than {} s", max_ms / 1_000),
    })
}

/// Why a worker that does not drain may be lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Stuck,
    Start,
    Silent,
}

/// Whether a worker is over its time, so that it is to be asked itself before anything is done about that.
pub fn is_doubted(worker: &WorkerSeen, timeouts: &Timeouts) -> bool {
    doubts(worker, timeouts).is_some()
}

/// The doubt about a worker, and by how much it is over its time, in milliseconds.
fn doubts(worker: &WorkerSeen, timeouts: &Timeouts) -> Option<(Doubt, u64)> {
    if worker.draining_ms.is_some() {
        return None;
    }
    let over = |ms: Option<u64>, max_ms: u64| ms.filter(|ms| *ms > max_ms).map(|ms| ms - max_ms);
    let age_ms = (worker.phase == Phase::Starting).then_some(worker.age_ms);
    let stuck = over(worker.stalled_ms, timeouts.stuck_ms).map(|ms| (Doubt::Stuck, ms));
    let start = || over(age_ms, timeouts.start_ms).map(|ms| (Doubt::Start, ms));
    let silent = || over(worker.silent_ms, timeouts.silent_ms).map(|ms| (Doubt::Silent, ms));
    stuck.or_else(start).or_else(silent)
}

/// A worker that is to be ended for doubt, unless its own answer speaks for it. A silent one lives if it answers at
/// all. One that made no progress is not stuck while it waits for a server; one that says that it is ready, and goes
/// on without progress, is.
fn doubt(worker: &WorkerSeen, timeouts: &Timeouts) -> Option<(u64, Overdue)> {
    let (doubt, over_ms) = doubts(worker, timeouts)?;
    let cleared = match (worker.answer, doubt) {
        (Answer::NotAsked, _) => true,
        (Answer::Unreachable | Answer::Silent, _) => false,
        (Answer::Ready, doubt) => doubt != Doubt::Stuck,
        (Answer::Waits, doubt) => doubt != Doubt::Start,
    };
    if cleared {
        return None;
    }
    let s = |ms: u64| ms / 1_000;
    let (reason, mut why) = match doubt {
        Doubt::Stuck => {
            let jobs = worker.in_flight;
            let for_s = s(worker.stalled_ms.unwrap_or_default());
            ("stuck", format!("holds {jobs} jobs and made no progress for {for_s} s"))
        }
        Doubt::Start => ("start", format!("was not ready after {} s", s(timeouts.start_ms))),
        Doubt::Silent => {
            ("silent", format!("has sent no heartbeat for {} s", s(timeouts.silent_ms)))
        }
    };
    why.push_str(match worker.answer {
        Answer::Silent => ", and does not answer when it is asked",
        Answer::Unreachable => ", and can't be asked",
        _ => "",
    });
    Some((over_ms, Overdue { name: worker.id.clone(), reason, why }))
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

    fn ended(workers: &[WorkerSeen], now_ms: u64, ends: &mut Ends) -> Vec<(String, &'static str)> {
        let overdue = overdue(workers, &TIMEOUTS, now_ms, ends);
        overdue.into_iter().map(|one| (one.name, one.reason)).collect()
    }

    fn reason(worker: WorkerSeen) -> Option<&'static str> {
        ended(&[worker], 0, &mut Ends::default()).pop().map(|(_, reason)| reason)
    }

    fn silent(id: &str, answer: Answer) -> WorkerSeen {
        WorkerSeen { silent_ms: Some(30_001), answer, ..ready(id, 3, 9_000_000) }
    }

    #[test]
    fn each_time_out_has_its_reason() {
        let answer = Answer::Silent;
        let starting = WorkerSeen { age_ms: 600_001, answer, ..WorkerSeen::default() };
        assert_eq!(reason(starting), Some("start"));
        let worker = || WorkerSeen { answer, ..ready("a", 3, 9_000_000) };
        assert_eq!(reason(worker()), None);
        assert_eq!(reason(WorkerSeen { stalled_ms: Some(60_001), ..worker() }), Some("stuck"));
        assert_eq!(reason(WorkerSeen { silent_ms: Some(30_001), ..worker() }), Some("silent"));
        assert_eq!(reason(WorkerSeen { draining_ms: Some(120_001), ..worker() }), Some("drain"));
    }

    #[test]
    fn no_worker_is_ended_for_silence_that_was_not_asked_or_that_answers() {
        use Answer::{NotAsked, Ready, Silent, Unreachable, Waits};
        for (answer, ends) in
            [(NotAsked, false), (Ready, false), (Waits, false), (Silent, true), (Unreachable, true)]
        {
            assert_eq!(reason(silent("a", answer)).is_some(), ends, "{answer:?}");
        }
    }

    #[test]
    fn one_without_progress_is_stuck_unless_it_waits_for_a_server() {
        use Answer::{NotAsked, Ready, Silent, Unreachable, Waits};
        for (answer, ends) in
            [(NotAsked, false), (Waits, false), (Ready, true), (Silent, true), (Unreachable, true)]
        {
            let stuck = WorkerSeen { stalled_ms: Some(60_001), answer, ..ready("a", 3, 9_000_000) };
            assert_eq!(reason(stuck).is_some(), ends, "{answer:?}");
        }
    }

    #[test]
    fn of_a_whole_pool_that_falls_silent_only_a_share_is_ended_at_once() {
        let pool: Vec<WorkerSeen> =
            (0..40).map(|n| silent(&format!("w{n:02}"), Answer::Unreachable)).collect();
        let mut ends = Ends::default();
        let first = ended(&pool, 1_000, &mut ends);
        assert_eq!(first.len(), 4);
        // Ended again while it is still there, which may have failed; and no other.
        assert_eq!(ended(&pool, 1_500, &mut ends), first);
        assert_eq!(ended(&pool[4..], 30_500, &mut ends), []);
        assert_eq!(ended(&pool[4..], 31_000, &mut ends).len(), 3, "a tenth of those that are left");
        assert_eq!(ended(&pool[..2], 99_000, &mut Ends::default()).len(), 1, "one of a small pool");
    }

    #[test]
    fn one_that_is_over_its_time_for_longest_is_ended_first() {
        let longer = WorkerSeen { silent_ms: Some(90_000), ..silent("z", Answer::Silent) };
        let pool = [silent("a", Answer::Silent), longer];
        let ends = ended(&pool, 0, &mut Ends::default());
        assert_eq!(ends, [("z".to_owned(), "silent")]);
    }

    #[test]
    fn workers_that_drain_too_long_are_all_ended() {
        let late = |id: &str| WorkerSeen { draining_ms: Some(120_001), ..ready(id, 1, 9_000_000) };
        let pool: Vec<WorkerSeen> = (0..20).map(|n| late(&n.to_string())).collect();
        assert_eq!(ended(&pool, 0, &mut Ends::default()).len(), 20);
    }

    #[test]
    fn a_draining_worker_has_only_the_time_out_of_draining() {
        let worker = WorkerSeen {
            draining_ms: Some(119_000),
            stalled_ms: Some(999_000),
            silent_ms: Some(999_000),
            answer: Answer::Silent,
            ..ready("a", 3, 9_000_000)
        };
        assert_eq!(ended(&[worker], 0, &mut Ends::default()), []);
    }
}
