//! Which errors ask the next model, and how much time each has.

use std::{cell::RefCell, path::Path};

use forebay_fabric::Config;

use super::*;
use crate::routing::Table;

const UNKNOWN: [Outlook; 2] = [Outlook::Unknown; 2];

fn route(lines: &str) -> Named {
    let text = format!(
        "[models.a]\nsource = \"folder:/a\"\n[models.b]\nsource = \"folder:/b\"\n[routes.r]\n{lines}\n\
         targets = [{{ model = \"a\" }}, {{ model = \"b\", tier = 2 }}]\n"
    );
    let (config, _) = Config::parse(Path::new("f"), &text, []).unwrap();
    Named::Route(Table::new(&config).get("r").unwrap().clone())
}

fn attempts(named: &Named, outlooks: &[Outlook]) -> Attempts {
    let deadline = Instant::now() + Duration::from_secs(10);
    Attempts::new(named, outlooks, ("t", "key"), deadline, "input")
}

fn texts() -> Vec<String> {
    vec!["x".into()]
}

/// Runs with a model that fails, and returns the answer with the models that were asked and how long each had.
async fn run(
    attempts: &Attempts,
    error: impl Fn() -> ApiError,
) -> (Result<Answered, ApiError>, Vec<(String, u64)>) {
    let asked = RefCell::new(Vec::new());
    let answer = attempts.run(texts(), |call, given| {
        assert_eq!(given, texts(), "each has all texts");
        let is_first = asked.borrow().is_empty();
        asked.borrow_mut().push((call.model.to_string(), call.wait.as_secs()));
        let result = if is_first { Err(error()) } else { Ok(()) };
        async { result }
    });
    let answer = answer.await.map(|((), answered)| answered);
    (answer, asked.into_inner())
}

fn reason(answer: &Result<Answered, ApiError>) -> Reason {
    answer.as_ref().unwrap().by.as_ref().unwrap().reason
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_fleet_is_followed_by_the_next_target_and_a_mistake_is_not() {
    let attempts = attempts(&route(""), &UNKNOWN);
    for code in FAILURES {
        let failure = || ApiError { code, ..ApiError::unavailable("x", "y") };
        let (answer, asked) = run(&attempts, failure).await;
        assert_eq!(reason(&answer), Reason::Failure, "{code}");
        assert_eq!(asked, [("a".to_owned(), 10), ("b".to_owned(), 10)], "{code}");
        assert_eq!(answer.unwrap().model.as_str(), "b");
    }
    for mistake in [ApiError::invalid("input", "z"), ApiError::internal("z")] {
        let (answer, asked) = run(&attempts, || mistake.clone()).await;
        assert_eq!((answer, asked.len()), (Err(mistake), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_the_last_target_is_the_answer() {
    let plain = attempts(&Named::Model("a".parse().unwrap()), &[]);
    let (answer, asked) = run(&plain, || ApiError::unavailable("overloaded", "full")).await;
    assert_eq!((answer.unwrap_err().code, asked.len()), ("overloaded", 1));
    let never = attempts(&route("fallback_on_failure = false"), &UNKNOWN);
    let (answer, asked) = run(&never, || ApiError::unavailable("overloaded", "full")).await;
    assert_eq!((answer.unwrap_err().code, asked.len()), ("overloaded", 1));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_the_last_has_its_own_time() {
    let attempts = attempts(&route("fallback_after_ms = 2000"), &UNKNOWN);
    let late = || ApiError::unavailable("deadline_exceeded", "late");
    let (answer, asked) = run(&attempts, late).await;
    assert_eq!(reason(&answer), Reason::Timeout);
    assert_eq!(asked, [("a".to_owned(), 2), ("b".to_owned(), 10)]);
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_no_other_is_asked() {
    let attempts = attempts(&route(""), &UNKNOWN);
    tokio::time::advance(Duration::from_secs(10)).await;
    let late = || ApiError::unavailable("deadline_exceeded", "late");
    let (answer, asked) = run(&attempts, late).await;
    assert_eq!((answer.unwrap_err().code, asked.len()), ("deadline_exceeded", 1));
}

#[tokio::test(start_paused = true)]
async fn a_predicted_wait_over_the_bound_asks_the_next_tier_first() {
    let wait = |s| Outlook::Wait(Duration::from_secs(s));
    let bounded = route("fallback_wait_ms = 1000");
    assert_eq!(attempts(&bounded, &[wait(2), wait(0)]).first().model.as_str(), "b");
    assert_eq!(attempts(&bounded, &[wait(1), wait(0)]).first().model.as_str(), "a");
    // Without a bound of its own it is the time that the caller waits.
    let own = route("");
    assert_eq!(attempts(&own, &[wait(9), wait(0)]).first().model.as_str(), "a");
    assert_eq!(attempts(&own, &[wait(11), wait(0)]).first().model.as_str(), "b");
}
