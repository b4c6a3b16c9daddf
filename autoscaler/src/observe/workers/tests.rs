//! From a launcher's list and the workers' records to the workers as the decision sees them.

use forebay_schemas::GenerateRecord;

use super::*;
use crate::{
    decide::{self, Ends, Overdue, Timeouts},
    testing::record,
};

const TIMEOUTS: Timeouts =
    Timeouts { start_ms: 600_000, stuck_ms: 60_000, drain_ms: 120_000, silent_ms: 30_000 };

impl WorkersLook {
    fn overdue(&self) -> Vec<Overdue> {
        let mut workers = self.workers.clone();
        for worker in &mut workers {
            worker.answer = Answer::Silent;
        }
        decide::overdue(&workers, &TIMEOUTS, 0, &mut Ends::default())
    }
}

fn instance(name: &str, state: InstanceState) -> Instance {
    Instance { name: name.into(), model: "m".into(), device: None, launched_at_ms: 1_000, state }
}

fn running() -> Vec<Instance> {
    vec![instance("a", InstanceState::Running)]
}

/// A registry without workers.
fn none() -> Registered {
    Registered::default()
}

/// A registry with this worker alone.
fn of(record: WorkerRecord) -> Registered {
    Registered { workers: vec![record], unreadable: Vec::new() }
}

#[test]
fn a_worker_starts_until_its_record_says_ready_and_its_cold_start_is_measured() {
    let mut observed = ObservedWorkers::default();
    observed.look(500, &[], Some(&none()));
    let look = observed.look(1_500, &running(), Some(&none()));
    assert_eq!(look.workers[0].phase, Phase::Starting);
    let starting = WorkerRecord { state: WorkerState::Starting, ..record("a") };
    observed.look(2_000, &running(), Some(&of(starting)));
    let look = observed.look(3_500, &running(), Some(&of(record("a"))));
    assert_eq!(look.workers[0].phase, Phase::Ready);
    assert_eq!(look.workers[0].cold_start_ms, Some(2_500));
}

#[test]
fn workers_that_are_there_at_the_first_look_are_adopted() {
    let mut observed = ObservedWorkers::default();
    assert_eq!(observed.look(0, &running(), Some(&none())).adopted, 1);
    let two = [running(), vec![instance("b", InstanceState::Running)]].concat();
    assert_eq!(observed.look(500, &two, Some(&none())).adopted, 0);
}

#[test]
fn one_that_holds_jobs_without_progress_is_overdue() {
    let mut observed = ObservedWorkers::default();
    let stuck = WorkerRecord { in_flight: 3, progress_at_ms: 5_000, ..record("a") };
    let mut look = |now_ms, record: &WorkerRecord| {
        observed.look(now_ms, &running(), Some(&of(record.clone()))).overdue()
    };
    assert!(look(500, &stuck).is_empty());
    assert!(look(60_000, &stuck).is_empty());
    assert_eq!(look(61_000, &stuck)[0].reason, "stuck");
    let moved = WorkerRecord { progress_at_ms: 5_001, ..stuck };
    assert!(look(61_500, &moved).is_empty());
}

#[test]
fn no_time_out_runs_while_the_registry_can_not_be_read() {
    let mut observed = ObservedWorkers::default();
    let holds = of(WorkerRecord { in_flight: 3, ..record("a") });
    observed.look(500, &running(), Some(&holds));
    // An hour without a registry, in which nothing could be settled either; then it is back, and empty.
    for now_ms in (1_000..3_600_000).step_by(10_000) {
        assert!(observed.look(now_ms, &running(), None).overdue().is_empty());
    }
    assert!(observed.look(3_600_500, &running(), Some(&none())).overdue().is_empty());
    assert!(observed.look(3_602_500, &running(), Some(&holds)).overdue().is_empty());
}

#[test]
fn an_old_worker_that_is_adopted_before_its_record_is_seen_is_left_alone() {
    let mut observed = ObservedWorkers::default();
    let now_ms = 10_000_000;
    assert!(observed.look(now_ms, &running(), Some(&none())).overdue().is_empty());
    assert!(observed.look(now_ms + 500, &running(), None).overdue().is_empty());
    // Nor does it matter what the launcher's clock shows.
    let mut ahead = running();
    ahead[0].launched_at_ms = u64::MAX;
    ahead[0].name = "b".into();
    let look = observed.look(now_ms + 1_000, &ahead, Some(&of(record("b"))));
    assert_eq!(look.workers[0].cold_start_ms, Some(0));
}

#[test]
fn one_that_never_becomes_ready_and_one_that_never_ends_are_overdue() {
    let mut observed = ObservedWorkers::default();
    assert!(observed.look(1_500, &running(), Some(&none())).overdue().is_empty());
    let look = observed.look(700_000, &running(), Some(&none()));
    assert_eq!(look.overdue()[0].reason, "start");
    let draining = vec![instance("a", InstanceState::Draining)];
    assert!(observed.look(700_500, &draining, Some(&none())).overdue().is_empty());
    let look = observed.look(900_000, &draining, Some(&none()));
    assert_eq!(look.overdue()[0].reason, "drain");
}

#[test]
fn silence_counts_only_while_the_registry_can_be_read() {
    let mut observed = ObservedWorkers::default();
    observed.look(1_500, &running(), Some(&of(record("a"))));
    assert!(observed.look(60_000, &running(), None).overdue().is_empty());
    // Just after the registry is back no worker can have sent a heartbeat yet.
    assert!(observed.look(60_500, &running(), Some(&none())).overdue().is_empty());
    let look = observed.look(90_500, &running(), Some(&none()));
    assert_eq!(look.overdue()[0].reason, "silent");
}

#[test]
fn an_end_comes_with_how_long_the_worker_had_been_ready_and_whether_it_was_asked_to_end() {
    let ended = |how: &str, well| InstanceState::Ended { how: how.into(), well };
    let mut observed = ObservedWorkers::default();
    observed.look(500, &[], Some(&none()));
    observed.look(1_500, &running(), Some(&none()));
    let gone = [instance("a", ended("exit code 2", false))];
    let end = observed.look(2_000, &gone, Some(&none())).ended.remove(0);
    assert_eq!((end.ready_for_ms, end.expected), (None, false));

    observed.look(2_500, &running(), Some(&of(record("a"))));
    observed.asked_to_drain(3_000, &["a".to_owned()]);
    let gone = [instance("a", ended("exit code 0", true))];
    let end = observed.look(4_500, &gone, Some(&none())).ended.remove(0);
    assert_eq!((end.ready_for_ms, end.expected), (Some(2_000), true));
    assert!(observed.known.is_empty(), "nothing is kept of workers that are gone");
}

#[test]
fn a_pod_whose_program_ends_is_known_by_how_long_it_had_been_ready() {
    let mut observed = ObservedWorkers::default();
    observed.look(500, &running(), Some(&of(record("a"))));
    let ended = InstanceState::Ended { how: "OOMKilled".into(), well: false };
    let both = [instance("a#7", ended), instance("a", InstanceState::Running)];
    let look = observed.look(100_500, &both, Some(&none()));
    assert_eq!(look.ended[0].ready_for_ms, Some(100_000));
    assert_eq!(look.workers[0].phase, Phase::Starting, "it starts again");
}

#[test]
fn an_end_before_the_first_look_counts_against_no_launcher() {
    let gone = InstanceState::Ended { how: "exit code 0".into(), well: true };
    let end =
        ObservedWorkers::default().look(0, &[instance("a", gone)], Some(&none())).ended.remove(0);
    assert!(end.expected);
}

#[test]
fn a_worker_of_another_version_is_present_ready_and_at_work_as_far_as_is_known() {
    let mut observed = ObservedWorkers::default();
    let other = Registered { workers: Vec::new(), unreadable: vec!["a".into()] };
    for now_ms in (500..2_000_000).step_by(10_000) {
        let look = observed.look(now_ms, &running(), Some(&other));
        assert!(look.overdue().is_empty());
        assert_eq!((look.unreadable, look.workers[0].phase), (1, Phase::Ready));
        assert_eq!(look.workers[0].in_flight, 1, "it does not drain before an idle one");
    }
}

#[test]
fn a_silent_worker_that_answers_is_left_alone_until_it_is_silent_for_as_long_again() {
    let mut observed = ObservedWorkers::default();
    observed.look(500, &running(), Some(&of(record("a"))));
    let silent = |now_ms: u64, observed: &mut ObservedWorkers| {
        let look = observed.look(now_ms, &running(), Some(&none()));
        decide::is_doubted(&look.workers[0], &TIMEOUTS).then(|| look.workers[0].clone())
    };
    assert!(silent(30_000, &mut observed).is_none());
    let mut worker = silent(31_000, &mut observed).unwrap();
    observed.answered(31_000, &mut worker, Answer::Ready);
    assert_eq!(worker.answer, Answer::Ready);
    assert!(silent(60_000, &mut observed).is_none());
    let mut worker = silent(61_500, &mut observed).unwrap();
    observed.answered(61_500, &mut worker, Answer::Silent);
    assert!(silent(62_000, &mut observed).is_some(), "it is asked again");
}

#[test]
fn a_worker_that_waits_for_a_server_is_not_stuck_for_as_long_again() {
    let mut observed = ObservedWorkers::default();
    let holds = || of(WorkerRecord { in_flight: 3, progress_at_ms: 5_000, ..record("a") });
    let mut look = |now_ms| {
        let worker = observed.look(now_ms, &running(), Some(&holds())).workers.remove(0);
        let doubted = decide::is_doubted(&worker, &TIMEOUTS);
        if doubted {
            observed.answered(now_ms, &mut worker.clone(), Answer::Waits);
        }
        doubted
    };
    assert_eq!(
        [500, 61_000, 61_500, 121_000, 122_000].map(&mut look),
        [false, true, false, false, true]
    );
}

#[test]
fn work_in_tokens_is_seen_where_all_of_it_is_reported() {
    let seen = |generate| {
        let record = WorkerRecord { in_flight: 3, generate: Some(generate), ..record("a") };
        let look = ObservedWorkers::default().look(500, &running(), Some(&of(record)));
        look.workers[0].generates
    };
    let earlier = GenerateRecord { running: 2, waiting: 0, ..GenerateRecord::default() };
    assert_eq!(seen(earlier), None, "what an earlier version does not report is not zero");
    let known = GenerateRecord {
        running_max: Some(2),
        running_tokens: Some(70),
        waiting_tokens: Some(0),
        pages_held: Some(4),
        ..earlier
    };
    let work = seen(known).unwrap();
    assert_eq!((work.jobs, work.running_tokens, work.tokens_per_job), (2, 70, None));
    assert!(work.is_full, "no other can run");
    let roomy = seen(GenerateRecord { running_max: Some(3), ..known }).unwrap();
    assert!(!roomy.is_full);
    assert!(seen(GenerateRecord { waiting: 1, running_max: Some(3), ..known }).unwrap().is_full);
}
