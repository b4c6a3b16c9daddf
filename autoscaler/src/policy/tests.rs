//! What the policy promises, one behaviour a test, and what holds for whatever it sees.

use proptest::prelude::*;

use super::*;

fn policy() -> PoolPolicy {
    PoolPolicy {
        workers_max: 8,
        drain_s: 10.0,
        jobs_per_s_prior: 10.0,
        cold_start_s_prior: 5.0,
        ..PoolPolicy::default()
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

fn look(now_s: u64, backlog: (u64, u64, u64), workers: &[WorkerSeen]) -> Observed {
    let (ready, unacknowledged, arrived_total) = backlog;
    let backlog = Some(Backlog { ready, unacknowledged, arrived_total });
    Observed { now_ms: now_s * 1_000, backlog, workers: workers.to_vec() }
}

/// The same look, second by second; the last decision.
fn watch(
    memory: &mut Memory,
    policy: &PoolPolicy,
    from_s: u64,
    seconds: u64,
    seen: &Observed,
) -> Decision {
    let mut last = decide(policy, memory, &Observed { now_ms: from_s * 1_000, ..seen.clone() });
    for second in 1..seconds {
        if !last.drain.is_empty() || last.launch > 0 {
            return last;
        }
        last =
            decide(policy, memory, &Observed { now_ms: (from_s + second) * 1_000, ..seen.clone() });
    }
    last
}

#[test]
fn a_given_idle_time_is_kept_to_the_second_however_often() {
    let policy = PoolPolicy { idle_s: Some(3.0), ..policy() };
    let (mut memory, mut now_s) = (Memory::new(), 0);
    for round in 1..=6 {
        let decision = decide(&policy, &mut memory, &look(now_s, (1, 0, round), &[]));
        assert_eq!(decision.launch, 1, "round {round}");
        for _ in 0..10 {
            now_s += 1;
            let busy = WorkerSeen { busy_ms: now_s * 1_000, ..ready("a", 1) };
            let decision = decide(&policy, &mut memory, &look(now_s, (0, 1, round), &[busy]));
            assert!(decision.drain.is_empty(), "round {round}: {}", decision.why);
        }
        let idle = look(now_s, (0, 0, round), &[ready("a", 0)]);
        let ended_s = now_s;
        while watch(&mut memory, &policy, now_s + 1, 1, &idle).drain.is_empty() {
            now_s += 1;
            assert!(now_s - ended_s <= 5, "round {round}: it still idles");
        }
        assert!(now_s - ended_s >= 2, "round {round}: it went after {} s", now_s - ended_s);
        now_s += 2;
    }
}

#[test]
fn the_first_job_starts_a_worker_at_once() {
    let decision = decide(&policy(), &mut Memory::new(), &look(0, (1, 0, 1), &[]));
    assert_eq!((decision.launch, decision.wanted, decision.why.code), (1, 1, Code::FromZero));
}

#[test]
fn a_backlog_is_shared_out_by_the_target() {
    // 450 jobs are 45 s of one worker: five workers drain them in 10 s, with half a worker to spare.
    let decision = decide(&policy(), &mut Memory::new(), &look(0, (450, 0, 450), &[]));
    assert_eq!(decision.launch, 5);
}

#[test]
fn a_backlog_below_activation_starts_nobody() {
    let policy = PoolPolicy { activation_jobs: 5, ..policy() };
    let mut memory = Memory::new();
    assert_eq!(decide(&policy, &mut memory, &look(0, (5, 0, 5), &[])).launch, 0);
    assert!(decide(&policy, &mut memory, &look(1, (6, 0, 6), &[])).launch > 0);
}

#[test]
fn what_starts_already_counts_as_capacity() {
    let starting: Vec<WorkerSeen> =
        (0..5).map(|n| WorkerSeen { id: format!("s{n}"), ..WorkerSeen::default() }).collect();
    let decision = decide(&policy(), &mut Memory::new(), &look(0, (450, 0, 450), &starting));
    assert_eq!(decision.launch, 0, "{}", decision.why);
}

#[test]
fn prefetched_jobs_are_backlog() {
    let decision =
        decide(&policy(), &mut Memory::new(), &look(0, (0, 900, 900), &[ready("a", 900)]));
    assert!(decision.launch > 0, "{}", decision.why);
}

#[test]
fn jobs_of_draining_workers_are_not() {
    let draining = WorkerSeen { phase: Phase::Draining, ..ready("a", 300) };
    let decision = decide(&policy(), &mut Memory::new(), &look(0, (0, 300, 300), &[draining]));
    assert_eq!(decision.launch, 0, "{}", decision.why);
}

#[test]
fn a_failed_observation_holds_the_size() {
    let workers = [ready("a", 0), ready("b", 0)];
    let mut memory = Memory::new();
    let mut seen = look(0, (0, 0, 0), &workers);
    decide(&policy(), &mut memory, &seen);
    seen.backlog = None;
    let decision = watch(&mut memory, &policy(), 1, 3_600, &seen);
    assert_eq!((decision.wanted, decision.why.code), (2, Code::NotObserved));
    assert!(decision.drain.is_empty());
}

#[test]
fn idle_workers_go_when_they_have_cost_a_cold_start() {
    let workers = [ready("a", 0), ready("b", 0)];
    let mut memory = Memory::new();
    let seen = look(0, (0, 0, 0), &workers);
    let early = watch(&mut memory, &policy(), 0, 5, &seen);
    assert_eq!((early.wanted, early.why.code), (2, Code::KeptWarm));
    let late = watch(&mut memory, &policy(), 5, 60, &seen);
    assert_eq!((late.wanted, late.drain.len(), late.why.code), (0, 2, Code::Idle));
}

#[test]
fn the_idle_time_can_be_given() {
    let policy = PoolPolicy { idle_s: Some(300.0), ..policy() };
    let seen = look(0, (0, 0, 0), &[ready("a", 0)]);
    let mut memory = Memory::new();
    assert_eq!(watch(&mut memory, &policy, 0, 298, &seen).wanted, 1);
    assert_eq!(watch(&mut memory, &policy, 298, 10, &seen).wanted, 0);
}

#[test]
fn a_minimum_is_started_and_kept_without_any_work() {
    let policy = PoolPolicy { workers_min: 2, ..policy() };
    let mut memory = Memory::new();
    let decision = decide(&policy, &mut memory, &look(0, (0, 0, 0), &[]));
    assert_eq!((decision.launch, decision.why.code), (2, Code::BelowMinimum));
    let workers = [ready("a", 0), ready("b", 0), ready("c", 0)];
    let decision = watch(&mut memory, &policy, 1, 600, &look(0, (0, 0, 0), &workers));
    assert_eq!((decision.wanted, decision.drain.len()), (2, 1));
}

#[test]
fn a_fixed_pool_is_never_changed() {
    let policy = PoolPolicy { workers_min: 1, workers_max: 1, ..policy() };
    let mut memory = Memory::new();
    for (second, jobs) in [(0, 0), (1, 10_000), (2, 0), (500, 0), (501, 9)] {
        let decision =
            decide(&policy, &mut memory, &look(second, (jobs, 0, jobs), &[ready("a", 0)]));
        assert_eq!((decision.wanted, decision.launch, decision.drain.len()), (1, 0, 0));
    }
}

#[test]
fn a_maximum_that_shrinks_drains_the_idle_and_then_the_least_loaded() {
    let policy = PoolPolicy { workers_max: 1, ..policy() };
    let workers = [ready("much", 9), ready("idle", 0), ready("little", 2)];
    let decision = decide(&policy, &mut Memory::new(), &look(0, (50, 11, 61), &workers));
    assert_eq!(
        (decision.drain, decision.why.code),
        (vec!["idle".into(), "little".into()], Code::AboveMaximum)
    );
}

#[test]
fn of_idle_workers_the_newest_goes_first() {
    let newer = WorkerSeen { age_ms: 30_000, ..ready("newer", 0) };
    let busy = WorkerSeen { busy_ms: 1, ..ready("busy", 1) };
    let mut memory = Memory::new();
    let seen = look(0, (0, 1, 1), &[ready("older", 0), newer, busy]);
    let policy = PoolPolicy { workers_min: 2, ..policy() };
    assert_eq!(watch(&mut memory, &policy, 0, 600, &seen).drain, ["newer"]);
}

#[test]
fn counters_from_before_a_restart_are_no_rate() {
    // A worker that did a million jobs in an hour, before this memory began.
    let mut worker = ready("a", 384);
    (worker.jobs_done, worker.busy_ms) = (1_000_000, 3_600_000);
    let decision =
        decide(&policy(), &mut Memory::new(), &look(0, (10_000, 384, 50_000_000), &[worker]));
    assert!((decision.why.jobs_per_s - 10.0).abs() < 1e-9, "{:?}", decision.why);
    assert!(decision.why.arrivals_per_s.abs() < 1e-9);
}

#[test]
fn rates_and_cold_starts_are_measured() {
    let mut memory = Memory::new();
    let mut worker = ready("a", 10);
    worker.cold_start_ms = Some(40_000);
    let mut why = None;
    for second in 0..300 {
        (worker.jobs_done, worker.busy_ms) = (second * 100, second * 1_000);
        let seen = look(second, (0, 10, second * 100), std::slice::from_ref(&worker));
        why = Some(decide(&policy(), &mut memory, &seen).why);
    }
    let why = why.unwrap();
    assert!((90.0..101.0).contains(&why.jobs_per_s), "{why:?}");
    assert!((95.0..101.0).contains(&why.arrivals_per_s), "{why:?}");
    assert!((why.cold_start_s - 40.0).abs() < 1e-9, "{why:?}");
}

#[test]
fn arrivals_during_a_failed_observation_are_spread_over_its_time() {
    let mut memory = Memory::new();
    let workers = [ready("a", 1)];
    decide(&policy(), &mut memory, &look(0, (0, 1, 0), &workers));
    for second in 1..100 {
        let seen = Observed { backlog: None, ..look(second, (0, 0, 0), &workers) };
        decide(&policy(), &mut memory, &seen);
    }
    let why = decide(&policy(), &mut memory, &look(100, (0, 1, 500), &workers)).why;
    assert!((4.9..5.1).contains(&why.arrivals_per_s), "{why:?}");
}

#[test]
fn workers_that_all_hold_jobs_and_hardly_work_become_fewer() {
    // Four workers, each with a job in flight at every look, busy for 50 ms a second.
    let mut memory = Memory::new();
    let drained = (0..600).find_map(|second| {
        let worker = |n: usize| WorkerSeen {
            jobs_done: second,
            busy_ms: second * 50,
            ..ready(&format!("w{n}"), 1)
        };
        let workers: Vec<WorkerSeen> = (0..4).map(worker).collect();
        let decision = decide(&policy(), &mut memory, &look(second, (0, 4, second * 4), &workers));
        (!decision.drain.is_empty()).then_some(decision.wanted)
    });
    assert_eq!(drained, Some(1));
}

#[test]
fn constant_load_does_not_flap() {
    // Three workers are needed, four are there; each is busy for three quarters of the time.
    let (mut memory, mut actions) = (Memory::new(), 0);
    for second in 0..3_600 {
        let worker = |n: usize| WorkerSeen {
            jobs_done: second * 7,
            busy_ms: second * 750,
            ..ready(&format!("w{n}"), u64::from(!(second + n as u64).is_multiple_of(4)))
        };
        let workers: Vec<WorkerSeen> = (0..4).map(worker).collect();
        let decision = decide(&policy(), &mut memory, &look(second, (0, 3, second * 28), &workers));
        actions += u32::from(decision.launch > 0);
        // A worker that is drained here is back at the next look, so one drain a minute is one decision repeated.
        assert!(decision.wanted >= 3, "{}", decision.why);
    }
    assert_eq!(actions, 0);
}

#[test]
fn every_reason_is_a_sentence_with_its_code() {
    let seen = look(0, (3, 0, 3), &[ready("a", 0)]);
    let pool = Pool::of(&seen);
    for code in [
        Code::Steady,
        Code::NotObserved,
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
        let why = Why::new(code, &policy(), &pool, None);
        assert!(why.to_string().len() > 15, "{why}");
        let json = serde_json::to_value(&why).unwrap();
        assert_eq!(json["code"], code.as_str());
    }
}

fn any_worker() -> impl Strategy<Value = WorkerSeen> {
    let phase = prop_oneof![Just(Phase::Starting), Just(Phase::Ready), Just(Phase::Draining)];
    let numbers =
        (0..100_000_u64, 0..3_u64, any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()));
    (0..40_u32, phase, numbers).prop_map(
        |(id, phase, (age_ms, in_flight, jobs_done, busy_ms, cold_start_ms))| WorkerSeen {
            id: id.to_string(),
            phase,
            age_ms,
            in_flight,
            jobs_done,
            busy_ms,
            cold_start_ms,
        },
    )
}

fn any_look() -> impl Strategy<Value = (u64, Option<Backlog>, Vec<WorkerSeen>)> {
    let backlog = (0..2_000_u64, 0..2_000_u64, any::<u64>()).prop_map(
        |(ready, unacknowledged, arrived_total)| Backlog { ready, unacknowledged, arrived_total },
    );
    let workers = prop::collection::vec(any_worker(), 0..12).prop_map(|mut workers| {
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        workers.dedup_by(|a, b| a.id == b.id);
        workers
    });
    (0..100_000_u64, prop::option::weighted(0.8, backlog), workers)
}

fn any_policy() -> impl Strategy<Value = PoolPolicy> {
    let numbers = (-1.0..100.0_f64, -1.0..1e4_f64, -1.0..1e4_f64);
    (0..10_u32, 0..10_u32, 0..5_u64, prop::option::of(0.0..100.0_f64), numbers).prop_map(
        |(
            least,
            more,
            activation_jobs,
            idle_s,
            (drain_s, jobs_per_s_prior, cold_start_s_prior),
        )| PoolPolicy {
            workers_min: least,
            workers_max: least + more,
            drain_s,
            idle_s,
            activation_jobs,
            jobs_per_s_prior,
            cold_start_s_prior,
        },
    )
}

fn check(policy: &PoolPolicy, seen: &Observed, decision: &Decision) {
    let active: Vec<&WorkerSeen> =
        seen.workers.iter().filter(|worker| worker.phase != Phase::Draining).collect();
    let drained = |worker: &WorkerSeen| decision.drain.contains(&worker.id);
    let after = active.len() + decision.launch as usize - decision.drain.len();
    assert_eq!(decision.wanted as usize, after, "{decision:?}");
    assert!((policy.workers_min..=policy.workers_max).contains(&decision.wanted), "{decision:?}");
    assert!(decision.launch == 0 || decision.drain.is_empty(), "{decision:?}");
    assert!(decision.drain.iter().all(|id| active.iter().any(|worker| worker.id == *id)));
    if active.iter().any(|worker| drained(worker) && worker.in_flight > 0) {
        assert!(
            active.iter().all(|worker| drained(worker) || worker.in_flight > 0),
            "{decision:?}"
        );
    }
    let within = (policy.workers_min..=policy.workers_max).contains(&(active.len() as u32));
    if seen.backlog.is_none() && within {
        assert_eq!((decision.launch, decision.drain.len()), (0, 0), "{decision:?}");
    }
}

proptest! {
    #[test]
    fn whatever_it_sees_the_size_is_allowed_and_no_busy_worker_goes_before_an_idle_one(
        policies in prop::collection::vec(any_policy(), 1..3),
        looks in prop::collection::vec(any_look(), 1..40),
    ) {
        let (mut memory, mut again) = (Memory::new(), Memory::new());
        let mut now_ms = 0;
        for (n, (later_ms, backlog, workers)) in looks.into_iter().enumerate() {
            now_ms += later_ms;
            let seen = Observed { now_ms, backlog, workers };
            let policy = &policies[n % policies.len()];
            let decision = decide(policy, &mut memory, &seen);
            check(policy, &seen, &decision);
            prop_assert!(memory.len() < 500);
            prop_assert_eq!(decision, decide(policy, &mut again, &seen));
        }
    }

    #[test]
    fn nothing_is_drained_while_the_queue_is_long(
        workers in 1..8_usize,
        backlog in 4_000..100_000_u64,
        seconds in 1..400_u64,
    ) {
        let workers: Vec<WorkerSeen> = (0..workers).map(|n| ready(&format!("w{n}"), 1)).collect();
        let mut memory = Memory::new();
        for second in 0..seconds {
            let decision = decide(&policy(), &mut memory, &look(second, (backlog, 8, backlog), &workers));
            prop_assert!(decision.drain.is_empty());
        }
    }
}
