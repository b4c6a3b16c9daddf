//! Properties that hold whatever the decision sees.

use proptest::prelude::*;

use super::*;

fn any_worker() -> impl Strategy<Value = WorkerSeen> {
    let phase = prop_oneof![Just(Phase::Starting), Just(Phase::Ready), Just(Phase::Draining)];
    let numbers =
        (0..100_000_u64, 0..3_u64, any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()));
    (0..40_u32, phase, numbers, prop::option::of(any_tokens())).prop_map(
        |(id, phase, (age_ms, in_flight, jobs_done, busy_ms, cold_start_ms), generates)| {
            WorkerSeen {
                generates,
                id: id.to_string(),
                phase,
                age_ms,
                in_flight,
                jobs_done,
                busy_ms,
                cold_start_ms,
                ..WorkerSeen::default()
            }
        },
    )
}

fn any_tokens() -> impl Strategy<Value = Generating> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()));
    (0..300_u64, numbers, any::<u64>(), any::<bool>()).prop_map(
        |(jobs, (running_tokens, waiting_tokens, tokens_done, tokens_per_job), held, is_full)| {
            Generating {
                jobs,
                running_tokens,
                waiting_tokens,
                tokens_per_job,
                tokens_done,
                is_full,
                pages_held: held,
            }
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
            (target_wait_s, jobs_per_s_prior, cold_start_s_prior),
        )| PoolPolicy {
            workers_min: least,
            workers_max: least + more,
            priority: 0,
            target_wait_s,
            idle_s,
            activation_jobs,
            jobs_per_s_prior,
            cold_start_s_prior,
        },
    )
}

fn check(policy: &PoolPolicy, seen: &PoolSeen, decision: &Decision) {
    let active: Vec<&WorkerSeen> =
        seen.workers.iter().filter(|worker| worker.phase != Phase::Draining).collect();
    let drained = |worker: &WorkerSeen| decision.moves.drain.contains(&worker.id);
    let after = active.len() + decision.launches() as usize - decision.moves.drain.len();
    assert_eq!(decision.wanted, decision.granted, "{decision:?}");
    if seen.backlog.is_some() {
        assert_eq!(decision.wanted as usize, after, "{decision:?}");
    }
    assert!((policy.workers_min..=policy.workers_max).contains(&decision.wanted), "{decision:?}");
    assert!(decision.launches() == 0 || decision.moves.drain.is_empty(), "{decision:?}");
    assert!(decision.moves.drain.iter().all(|id| active.iter().any(|worker| worker.id == *id)));
    if active.iter().any(|worker| drained(worker) && worker.in_flight > 0) {
        assert!(
            active.iter().all(|worker| drained(worker) || worker.in_flight > 0),
            "{decision:?}"
        );
    }
    if seen.backlog.is_none() {
        assert_eq!((decision.launches(), decision.moves.drain.len()), (0, 0), "{decision:?}");
    }
}

proptest! {
    #[test]
    fn whatever_it_sees_the_size_is_allowed_and_no_busy_worker_goes_before_an_idle_one(
        policies in prop::collection::vec(any_policy(), 1..3),
        looks in prop::collection::vec(any_look(), 1..40),
    ) {
        let mut history = History::new();
        let mut again = History::new();
        let mut now_ms = 0;
        for (n, (later_ms, backlog, workers)) in looks.into_iter().enumerate() {
            now_ms += later_ms;
            let seen = PoolSeen { now_ms, backlog, workers, ..PoolSeen::default() };
            let policy = &policies[n % policies.len()];
            let decision = decide_one(policy, &mut history, &seen);
            check(policy, &seen, &decision);
            prop_assert!(history.len() < 500);
            prop_assert_eq!(decision, decide_one(policy, &mut again, &seen));
        }
    }

    #[test]
    fn nothing_is_drained_while_the_queue_is_long(
        workers in 1..8_usize,
        backlog in 4_000..100_000_u64,
        seconds in 1..400_u64,
    ) {
        let workers: Vec<WorkerSeen> = (0..workers).map(|n| ready(&format!("w{n}"), 1)).collect();
        let mut history = History::new();
        for second in 0..seconds {
            let decision = decide_one(&policy(), &mut history, &look(second, (backlog, 8, backlog), &workers));
            prop_assert!(decision.moves.drain.is_empty());
        }
    }
}
