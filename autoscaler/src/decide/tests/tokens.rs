//! Models that generate text: their work is tokens, of which workers report what is to come.

use super::*;

/// A worker's tokens: so many computed at 1,000 a second, one job takes so many.
fn generating(second: u64, per_second: u64, tokens_per_job: u64) -> Generating {
    Generating {
        tokens_per_job: Some(tokens_per_job),
        tokens_done: second * per_second,
        ..Generating::default()
    }
}

/// A ready worker that has been busy all the time, and has not ended a single job.
fn busy(id: &str, second: u64, generates: Generating) -> WorkerSeen {
    WorkerSeen {
        busy_ms: second * 1_000,
        generates: Some(generates),
        ..ready(id, generates.jobs.max(1))
    }
}

/// A history of a worker that runs all it can and computes 1,000 tokens a second, a job of so many.
fn measured(tokens_per_job: u64) -> History {
    let mut history = History::new();
    for second in 0..10 {
        let generates = Generating { is_full: true, ..generating(second, 1_000, tokens_per_job) };
        let seen = look(second, (0, 1, 1), &[busy("a", second, generates)]);
        assert_eq!(decide_one(&policy(), &mut history, &seen).launches(), 0);
    }
    history
}

#[test]
fn few_long_jobs_ask_for_more_workers_than_many_short_ones() {
    let decide = |jobs: u64, tokens_per_job: u64| {
        let generates = Generating { is_full: true, ..generating(10, 1_000, tokens_per_job) };
        let seen = look(10, (jobs, 1, 1), &[busy("a", 10, generates)]);
        decide_one(&policy(), &mut measured(tokens_per_job), &seen)
    };
    let long = decide(40, 2_000);
    // 41 jobs are 82 s of a worker; this one does 15 s of that until a new one has had its target wait.
    assert_eq!((long.launches(), long.why.code), (7, Code::BehindTarget), "{}", long.why);
    assert!(long.why.to_string().contains("82000 tokens to come"), "{}", long.why);
    let short = decide(400, 20);
    assert_eq!(short.launches(), 0, "{}", short.why);
    let why = short.why;
    assert_eq!(why.tokens_per_job, Some(20.0));
    assert!((why.tokens_per_s.unwrap() - 1_000.0).abs() < 1e-6, "{why:?}");
    assert!((why.jobs_per_s - 50.0).abs() < 1e-9, "{why:?}");
}

#[test]
fn jobs_are_counted_until_their_tokens_are_known() {
    // No second has been measured: ten jobs a second, as the configuration says.
    let generates = generating(0, 0, 5_000);
    let seen = look(0, (450, 1, 1), &[busy("a", 0, generates)]);
    let decision = decide_one(&policy(), &mut History::new(), &seen);
    assert_eq!((decision.why.backlog_tokens, decision.launches()), (None, 4), "{}", decision.why);
}

#[test]
fn what_is_known_of_tokens_outlives_the_workers() {
    let mut history = measured(2_000);
    decide_one(&policy(), &mut history, &look(11, (0, 0, 1), &[]));
    let decision = decide_one(&policy(), &mut history, &look(600, (40, 0, 41), &[]));
    // 80 s of work, and no worker.
    assert_eq!((decision.launches(), decision.why.code), (8, Code::FromZero), "{}", decision.why);
}

#[test]
fn what_runs_stays_where_it_is_and_asks_for_no_other_worker() {
    let held = |running_tokens, waiting_tokens| Generating {
        jobs: 80,
        running_tokens,
        waiting_tokens,
        is_full: true,
        ..generating(10, 1_000, 1_000)
    };
    let launches = |generates| {
        // They have all been there before.
        let seen = look(10, (0, 80, 1), &[busy("a", 10, generates)]);
        decide_one(&policy(), &mut measured(1_000), &seen).launches()
    };
    assert_eq!(launches(held(80_000, 0)), 0, "no other worker could help");
    // The one that is there is taken for longer than a new one would need for those that wait.
    assert_eq!(launches(held(60_000, 19_000)), 2);
    assert_eq!(launches(held(5_000, 19_000)), 1, "it does the others within 10 s of the 15");
}

#[test]
fn jobs_that_no_worker_has_looked_at_count_as_the_mean() {
    let known =
        Generating { jobs: 10, waiting_tokens: 5_000, is_full: true, ..generating(10, 1_000, 500) };
    let seen = look(10, (20, 30, 50), &[busy("a", 10, known)]);
    let decision = decide_one(&policy(), &mut measured(500), &seen);
    // Ten are known; of the 40 others 20 wait in the queue and 20 are on their way.
    assert_eq!(decision.why.backlog_tokens, Some(5_000.0 + 40.0 * 500.0), "{}", decision.why);
}

#[test]
fn one_with_room_left_shows_less_than_it_is_capable_of() {
    let mut history = measured(1_000);
    let mut staying = vec!["a", "b", "c", "d"];
    let mut drained = Vec::new();
    for second in 10..400_u64 {
        // Each has a sequence, of which it computes a tenth of what it could.
        let worker = |id: &&str| {
            let generates = Generating {
                jobs: 1,
                tokens_done: 10_000 + (second - 10) * 100,
                running_tokens: 500,
                pages_held: u64::from(b'z' - id.as_bytes()[0]),
                ..generating(0, 0, 1_000)
            };
            busy(id, second, generates)
        };
        let workers: Vec<WorkerSeen> = staying.iter().map(worker).collect();
        let held = staying.len() as u64;
        let decision = decide_one(&policy(), &mut history, &look(second, (0, held, 4), &workers));
        assert_eq!(decision.launches(), 0, "{}", decision.why);
        let per_s = decision.why.tokens_per_s.unwrap();
        assert!((per_s - 1_000.0).abs() < 1e-6, "it is capable of what it did before: {per_s}");
        staying.retain(|id| !decision.moves.drain.iter().any(|drained| drained == id));
        drained.extend(decision.moves.drain);
    }
    // Four tenths of a worker need one; first those go that the others have the least to compute again of.
    assert_eq!((staying, drained.join(" ").as_str()), (vec!["a"], "d c b"));
}

#[test]
fn workers_of_an_earlier_version_count_by_their_jobs() {
    let old = WorkerSeen { generates: None, ..ready("old", 10) };
    let generates = Generating { is_full: true, ..generating(10, 1_000, 500) };
    let workers = [busy("a", 10, generates), old];
    let decision = decide_one(&policy(), &mut measured(500), &look(10, (0, 11, 11), &workers));
    assert_eq!(decision.why.backlog_tokens, Some(11.0 * 500.0), "{}", decision.why);
}
