//! From sizes to moves: device slots, the circuit, partial observations, and workers that are to leave.

use super::*;

/// The decisions on two pools that share these slots: the first of a higher priority and without workers, the second
/// with an idle and a busy one.
fn decide_two(first_jobs: u64, slots: u32) -> Vec<Decision> {
    let first = look(0, (first_jobs, 0, first_jobs), &[]);
    let second = look(0, (300, 0, 300), &[ready("a", 0), ready("b", 1)]);
    let circuit = Circuit::default();
    let mut histories = [History::new(), History::new()];
    let [one, two] = &mut histories;
    let high = PoolPolicy { priority: 1, ..policy() };
    let mut pools = [
        PoolInput { policy: high, seen: &first, circuit: &circuit, history: one },
        PoolInput { policy: policy(), seen: &second, circuit: &circuit, history: two },
    ];
    let mut slots = DeviceSlots::counted([("cpu".to_owned(), slots)]);
    slots.occupy("cpu");
    slots.occupy("cpu");
    decide(&mut pools, &mut slots, &Timeouts::NONE)
}

#[test]
fn a_pool_of_a_higher_priority_takes_slots_and_the_idle_worker_leaves_first() {
    let decisions = decide_two(50, 2);
    assert_eq!((decisions[0].granted, decisions[1].granted), (1, 1));
    assert!(decisions[1].wanted > 1);
    assert_eq!(decisions[1].moves.drain, ["a"]);
    assert!(decisions[0].moves.launch.is_empty(), "its slot is free only when that worker is gone");
}

#[test]
fn a_free_slot_is_given_once() {
    let decisions = decide_two(50, 3);
    assert_eq!(decisions[0].moves.launch, ["cpu"]);
    assert_eq!((decisions[1].granted, decisions[1].moves.is_empty()), (2, true));
}

#[test]
fn launches_that_fail_are_held_back() {
    let mut circuit = Circuit::default();
    circuit.failed(0, "no image".into());
    let launches = |now_s| {
        let seen = look(now_s, (450, 0, 450), &[]);
        let history = &mut History::new();
        let input = PoolInput { policy: policy(), seen: &seen, circuit: &circuit, history };
        let mut slots = DeviceSlots::unlimited("cpu");
        let decision = decide(&mut [input], &mut slots, &Timeouts::NONE).remove(0);
        (decision.granted, decision.launches())
    };
    assert_eq!((launches(0), launches(1)), ((5, 0), (5, 1)));
}

#[test]
fn a_pool_that_is_not_observed_keeps_its_workers_whatever_its_limits_are() {
    let mut seen = look(0, (0, 0, 0), &[ready("a", 0), ready("b", 0)]);
    seen.backlog = None;
    for (workers_min, workers_max) in [(0, 1), (5, 8)] {
        let policy = PoolPolicy { workers_min, workers_max, ..policy() };
        assert!(decide_one(&policy, &mut History::new(), &seen).moves.is_empty());
    }
}

#[test]
fn a_size_that_rests_on_a_partial_observation_grows_and_does_not_shrink() {
    let partial = |seen: PoolSeen| PoolSeen { partial: true, ..seen };
    let idle = partial(look(0, (0, 0, 0), &[ready("a", 0)]));
    let decision = watch(&mut History::new(), &policy(), 0, 600, &idle);
    assert_eq!((decision.wanted, decision.moves.is_empty()), (1, true));
    let busy = partial(look(0, (450, 0, 450), &[]));
    assert_eq!(decide_one(&policy(), &mut History::new(), &busy).launches(), 5);
}

#[test]
fn workers_that_are_to_leave_are_drained_once_and_ended_when_that_takes_too_long() {
    let timeouts = Timeouts { drain_ms: 120_000, ..Timeouts::NONE };
    let drains =
        |id: &str, ms| WorkerSeen { phase: Phase::Draining, draining_ms: Some(ms), ..ready(id, 1) };
    let workers = [ready("busy", 2), ready("idle", 0), drains("c", 60_000), drains("d", 121_000)];
    let moves = leave(&workers, &timeouts);
    assert_eq!(moves.drain, ["idle", "busy"]);
    assert_eq!(moves.end.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["d"]);
}

#[test]
fn nothing_new_is_asked_of_a_launcher_that_is_still_at_what_was_decided_before() {
    let acting = |seen: PoolSeen| PoolSeen { acting: true, ..seen };
    let silent = WorkerSeen {
        draining_ms: Some(999_000),
        phase: Phase::Draining,
        answer: Answer::Silent,
        ..ready("a", 1)
    };
    let mut history = History::new();
    for second in 0..60 {
        let busy = acting(look(second, (450, 0, 450), std::slice::from_ref(&silent)));
        let decision = decide_one(&policy(), &mut history, &busy);
        assert!(decision.moves.is_empty());
    }
    // It is as if nothing had been decided meanwhile.
    let busy = look(60, (450, 0, 450), &[]);
    assert_eq!(decide_one(&policy(), &mut history, &busy).launches(), 5);
}
