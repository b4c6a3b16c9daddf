//! The promises of the decision, one behaviour a test.

use super::*;

mod moves;
mod properties;
mod tokens;

fn policy() -> PoolPolicy {
    PoolPolicy {
        workers_min: 0,
        workers_max: 8,
        priority: 0,
        target_wait_s: 10.0,
        idle_s: None,
        activation_jobs: 0,
        jobs_per_s_prior: 10.0,
        cold_start_s_prior: 5.0,
    }
}

fn ready(id: &str, in_flight: u64) -> WorkerSeen {
    let cold_start_ms = Some(5_000);
    WorkerSeen {
        id: id.into(),
        phase: Phase::Ready,
        age_ms: 60_000,
        in_flight,
        cold_start_ms,
        ..WorkerSeen::default()
    }
}

fn look(now_s: u64, backlog: (u64, u64, u64), workers: &[WorkerSeen]) -> PoolSeen {
    let (ready, unacknowledged, arrived_total) = backlog;
    let backlog = Some(Backlog { ready, unacknowledged, arrived_total });
    PoolSeen { now_ms: now_s * 1_000, backlog, workers: workers.to_vec(), ..PoolSeen::default() }
}

impl Decision {
    fn launches(&self) -> u32 {
        self.moves.launch.len() as u32
    }
}

/// The decision on one pool with device slots for all of its workers and launches that never failed.
fn decide_one(policy: &PoolPolicy, history: &mut History, seen: &PoolSeen) -> Decision {
    let circuit = Circuit::default();
    let input = PoolInput { policy: policy.clone(), seen, circuit: &circuit, history };
    let mut slots = DeviceSlots::unlimited("cpu");
    decide(&mut [input], &mut slots, &Timeouts::NONE).remove(0)
}

/// Decides every second on what is seen, until something is to be done; the last decision.
fn watch(
    history: &mut History,
    policy: &PoolPolicy,
    from_s: u64,
    seconds: u64,
    seen: &PoolSeen,
) -> Decision {
    let mut last =
        decide_one(policy, history, &PoolSeen { now_ms: from_s * 1_000, ..seen.clone() });
    for second in 1..seconds {
        if !last.moves.drain.is_empty() || last.launches() > 0 {
            return last;
        }
        last = decide_one(
            policy,
            history,
            &PoolSeen { now_ms: (from_s + second) * 1_000, ..seen.clone() },
        );
    }
    last
}

#[test]
fn a_given_idle_time_is_kept_to_the_second_however_often() {
    let policy = PoolPolicy { idle_s: Some(3.0), ..policy() };
    let mut history = History::new();
    let mut now_s = 0;
    for round in 1..=6 {
        let decision = decide_one(&policy, &mut history, &look(now_s, (1, 0, round), &[]));
        assert_eq!(decision.launches(), 1, "round {round}");
        for _ in 0..10 {
            now_s += 1;
            let busy = WorkerSeen { busy_ms: now_s * 1_000, ..ready("a", 1) };
            let decision = decide_one(&policy, &mut history, &look(now_s, (0, 1, round), &[busy]));
            assert!(decision.moves.drain.is_empty(), "round {round}: {}", decision.why);
        }
        let idle = look(now_s, (0, 0, round), &[ready("a", 0)]);
        let ended_s = now_s;
        while watch(&mut history, &policy, now_s + 1, 1, &idle).moves.drain.is_empty() {
            now_s += 1;
            assert!(now_s - ended_s <= 5, "round {round}: it still idles");
        }
        assert!(now_s - ended_s >= 2, "round {round}: it went after {} s", now_s - ended_s);
        now_s += 2;
    }
}

#[test]
fn the_first_job_starts_a_worker_at_once() {
    let decision = decide_one(&policy(), &mut History::new(), &look(0, (1, 0, 1), &[]));
    assert_eq!((decision.launches(), decision.wanted, decision.why.code), (1, 1, Code::FromZero));
}

#[test]
fn a_backlog_is_shared_out_by_the_target() {
    // 450 jobs are 45 s of one worker: five workers drain them in 10 s, with half a worker to spare.
    let decision = decide_one(&policy(), &mut History::new(), &look(0, (450, 0, 450), &[]));
    assert_eq!(decision.launches(), 5);
}

#[test]
fn a_backlog_below_activation_starts_no_worker() {
    let policy = PoolPolicy { activation_jobs: 5, ..policy() };
    let mut history = History::new();
    assert_eq!(decide_one(&policy, &mut history, &look(0, (5, 0, 5), &[])).launches(), 0);
    assert!(decide_one(&policy, &mut history, &look(1, (6, 0, 6), &[])).launches() > 0);
}

#[test]
fn starting_workers_count_as_capacity() {
    let starting: Vec<WorkerSeen> =
        (0..5).map(|n| WorkerSeen { id: format!("s{n}"), ..WorkerSeen::default() }).collect();
    let decision = decide_one(&policy(), &mut History::new(), &look(0, (450, 0, 450), &starting));
    assert_eq!(decision.launches(), 0, "{}", decision.why);
}

#[test]
fn prefetched_jobs_are_backlog() {
    let decision =
        decide_one(&policy(), &mut History::new(), &look(0, (0, 900, 900), &[ready("a", 900)]));
    assert!(decision.launches() > 0, "{}", decision.why);
}

#[test]
fn jobs_of_draining_workers_are_not() {
    let draining = WorkerSeen { phase: Phase::Draining, ..ready("a", 300) };
    let decision = decide_one(&policy(), &mut History::new(), &look(0, (0, 300, 300), &[draining]));
    assert_eq!(decision.launches(), 0, "{}", decision.why);
}

#[test]
fn a_failed_observation_holds_the_size() {
    let workers = [ready("a", 0), ready("b", 0)];
    let mut history = History::new();
    let mut seen = look(0, (0, 0, 0), &workers);
    decide_one(&policy(), &mut history, &seen);
    seen.backlog = None;
    let decision = watch(&mut history, &policy(), 1, 3_600, &seen);
    assert_eq!((decision.wanted, decision.why.code), (2, Code::NotObserved));
    assert!(decision.moves.drain.is_empty());
}

#[test]
fn idle_workers_go_when_they_have_cost_a_cold_start() {
    let workers = [ready("a", 0), ready("b", 0)];
    let mut history = History::new();
    let seen = look(0, (0, 0, 0), &workers);
    let early = watch(&mut history, &policy(), 0, 5, &seen);
    assert_eq!((early.wanted, early.why.code), (2, Code::KeptWarm));
    let late = watch(&mut history, &policy(), 5, 60, &seen);
    assert_eq!((late.wanted, late.moves.drain.len(), late.why.code), (0, 2, Code::Idle));
}

#[test]
fn the_idle_time_can_be_given() {
    let policy = PoolPolicy { idle_s: Some(300.0), ..policy() };
    let seen = look(0, (0, 0, 0), &[ready("a", 0)]);
    let mut history = History::new();
    assert_eq!(watch(&mut history, &policy, 0, 298, &seen).wanted, 1);
    assert_eq!(watch(&mut history, &policy, 298, 10, &seen).wanted, 0);
}

#[test]
fn a_minimum_is_started_and_kept_without_any_work() {
    let policy = PoolPolicy { workers_min: 2, ..policy() };
    let mut history = History::new();
    let decision = decide_one(&policy, &mut history, &look(0, (0, 0, 0), &[]));
    assert_eq!((decision.launches(), decision.why.code), (2, Code::BelowMinimum));
    let workers = [ready("a", 0), ready("b", 0), ready("c", 0)];
    let decision = watch(&mut history, &policy, 1, 600, &look(0, (0, 0, 0), &workers));
    assert_eq!((decision.wanted, decision.moves.drain.len()), (2, 1));
}

#[test]
fn a_fixed_pool_is_never_changed() {
    let policy = PoolPolicy { workers_min: 1, workers_max: 1, ..policy() };
    let mut history = History::new();
    for (second, jobs) in [(0, 0), (1, 10_000), (2, 0), (500, 0), (501, 9)] {
        let decision =
            decide_one(&policy, &mut history, &look(second, (jobs, 0, jobs), &[ready("a", 0)]));
        assert_eq!((decision.wanted, decision.launches(), decision.moves.drain.len()), (1, 0, 0));
    }
}

#[test]
fn a_maximum_that_shrinks_drains_the_idle_and_then_the_least_loaded() {
    let policy = PoolPolicy { workers_max: 1, ..policy() };
    let workers = [ready("much", 9), ready("idle", 0), ready("little", 2)];
    let decision = decide_one(&policy, &mut History::new(), &look(0, (50, 11, 61), &workers));
    assert_eq!(
        (decision.moves.drain, decision.why.code),
        (vec!["idle".into(), "little".into()], Code::AboveMaximum)
    );
}

#[test]
fn of_idle_workers_the_newest_goes_first() {
    let newer = WorkerSeen { age_ms: 30_000, ..ready("newer", 0) };
    let busy = WorkerSeen { busy_ms: 1, ..ready("busy", 1) };
    let mut history = History::new();
    let seen = look(0, (0, 1, 1), &[ready("older", 0), newer, busy]);
    let policy = PoolPolicy { workers_min: 2, ..policy() };
    assert_eq!(watch(&mut history, &policy, 0, 600, &seen).moves.drain, ["newer"]);
}

#[test]
fn counters_from_before_a_restart_are_no_rate() {
    // A worker that did a million jobs in an hour, before this history began.
    let mut worker = ready("a", 384);
    worker.jobs_done = 1_000_000;
    worker.busy_ms = 3_600_000;
    let decision =
        decide_one(&policy(), &mut History::new(), &look(0, (10_000, 384, 50_000_000), &[worker]));
    assert!((decision.why.jobs_per_s - 10.0).abs() < 1e-9, "{:?}", decision.why);
    assert!(decision.why.arrivals_per_s.abs() < 1e-9);
}

#[test]
fn rates_and_cold_starts_are_measured() {
    let mut history = History::new();
    let mut worker = ready("a", 10);
    worker.cold_start_ms = Some(40_000);
    let mut why = None;
    for second in 0..300 {
        worker.jobs_done = second * 100;
        worker.busy_ms = second * 1_000;
        let seen = look(second, (0, 10, second * 100), std::slice::from_ref(&worker));
        why = Some(decide_one(&policy(), &mut history, &seen).why);
    }
    let why = why.unwrap();
    assert!((90.0..101.0).contains(&why.jobs_per_s), "{why:?}");
    assert!((95.0..101.0).contains(&why.arrivals_per_s), "{why:?}");
    assert!((why.cold_start_s - 40.0).abs() < 1e-9, "{why:?}");
}

#[test]
fn arrivals_during_a_failed_observation_are_spread_over_its_time() {
    let mut history = History::new();
    let workers = [ready("a", 1)];
    decide_one(&policy(), &mut history, &look(0, (0, 1, 0), &workers));
    for second in 1..100 {
        let seen = PoolSeen { backlog: None, ..look(second, (0, 0, 0), &workers) };
        decide_one(&policy(), &mut history, &seen);
    }
    let why = decide_one(&policy(), &mut history, &look(100, (0, 1, 500), &workers)).why;
    assert!((4.9..5.1).contains(&why.arrivals_per_s), "{why:?}");
}

#[test]
fn workers_that_all_hold_jobs_and_hardly_work_become_fewer() {
    // Four workers, each with a job in flight at every look, busy for 50 ms a second.
    let mut history = History::new();
    let drained = (0..600).find_map(|second| {
        let worker = |n: usize| WorkerSeen {
            jobs_done: second,
            busy_ms: second * 50,
            ..ready(&format!("w{n}"), 1)
        };
        let workers: Vec<WorkerSeen> = (0..4).map(worker).collect();
        let decision =
            decide_one(&policy(), &mut history, &look(second, (0, 4, second * 4), &workers));
        (!decision.moves.drain.is_empty()).then_some(decision.wanted)
    });
    assert_eq!(drained, Some(1));
}

#[test]
fn constant_load_does_not_flap() {
    // Three workers are needed, four are there; each is busy for three quarters of the time.
    let mut history = History::new();
    let mut actions = 0;
    for second in 0..3_600 {
        let worker = |n: usize| WorkerSeen {
            jobs_done: second * 7,
            busy_ms: second * 750,
            ..ready(&format!("w{n}"), u64::from(!(second + n as u64).is_multiple_of(4)))
        };
        let workers: Vec<WorkerSeen> = (0..4).map(worker).collect();
        let decision =
            decide_one(&policy(), &mut history, &look(second, (0, 3, second * 28), &workers));
        actions += u32::from(decision.launches() > 0);
        // A worker that is drained here is back at the next look, so one drain a minute is one decision repeated.
        assert!(decision.wanted >= 3, "{}", decision.why);
    }
    assert_eq!(actions, 0);
}

#[test]
fn every_reason_is_a_sentence_with_its_code() {
    let seen = look(0, (3, 0, 3), &[ready("a", 0)]);
    let capacity = seen::Capacity::of(&seen);
    for code in [
        Code::Steady,
        Code::NotObserved,
        Code::Acting,
        Code::BelowMinimum,
        Code::AboveMaximum,
        Code::FromZero,
        Code::BehindTarget,
        Code::BurstDue,
        Code::HeldBack,
        Code::Idle,
        Code::KeptWarm,
        Code::TooManyActions,
    ] {
        let why = Why::new(code, &policy(), &capacity, None);
        assert!(why.to_string().len() > 15, "{why}");
        let json = serde_json::to_value(&why).unwrap();
        assert_eq!(json["code"], code.as_str());
    }
}
