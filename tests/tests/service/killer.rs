//! Jobs that take their worker with them: they alone end badly, after few deaths, and all others are done.

use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::record::{find, finished, result};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::AsyncCommands as _;
use serde_json::json;

/// A job that asks for a fault, in a build for tests.
fn faulty(stack: &Stack, fault: &str) -> Job {
    Job::embed(format!("a job with {fault}"))
        .with("model", stack.model())
        .with("metadata", json!({"fault": fault}))
}

fn innocent(stack: &Stack, count: usize) -> Vec<Job> {
    let text = |n| format!("passage {n}: water in a pool");
    (0..count).map(|n| Job::embed(text(n)).with("model", stack.model())).collect()
}

/// Starts a worker whenever the one before has died, until every job has its record. How many died.
async fn deaths_until_done(stack: &Stack, ids: &[&str], overrides: &[(&str, &str)]) -> usize {
    let mut redis = stack.redis().await;
    let mut worker: Service = stack.starting_worker(overrides);
    let mut deaths = 0;
    until_true("every job has its record", PATIENT * 2, async || {
        if !worker.is_running() {
            deaths += 1;
            worker = stack.starting_worker(overrides);
        }
        finished(&mut redis, ids).await == ids.len()
    })
    .await;
    deaths
}

#[tokio::test]
async fn one_killer_among_two_thousand_ends_alone_after_few_deaths() {
    let stack = Stack::start().await.tiny();
    assert_eq!(stack.forebay(&["queues"]).await.code, 0);
    let publisher = stack.publisher().await;
    let mut jobs = innocent(&stack, 1_999);
    jobs.insert(1_000, faulty(&stack, "abort"));
    publisher.submit_all(stack.model(), &jobs, Codec::Msgpack).await;
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();

    // Each death is seen when the dead worker's record has expired, since no autoscaler runs.
    let attempts = [("FOREBAY_WORKER__ATTEMPTS_MAX", "3")];
    let deaths = deaths_until_done(&stack, &ids, &attempts).await;
    let mut redis = stack.redis().await;
    for (n, id) in ids.iter().enumerate() {
        let record = find(&mut redis, id).await.unwrap();
        let expected =
            if n == 1_000 { ("failed", "attempts_exhausted") } else { ("succeeded", "") };
        assert_eq!((record.state(), record.error_code()), expected, "job {n}: {}", record.fields);
    }
    assert_eq!(deaths, 3, "workers died");
    let queue = stack.batch_queue();
    let empty = async || stack.vhost.depth(&queue) == 0;
    until_true("nothing is left in the queue", SOON, empty).await;
    eprintln!("one killer among 2,000 jobs cost {deaths} workers");
}

#[tokio::test]
async fn faults_of_one_job_in_the_engine_leave_its_batch_mates_alone() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[("FOREBAY_WORKER__ATTEMPTS_MAX", "1")]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let codes = [
        ("panic", "attempts_exhausted"),
        ("nan", "numerical_error"),
        ("error", "attempts_exhausted"),
        ("out_of_memory", ""), // it fits once its batch is small
    ];
    let mut jobs = innocent(&stack, 100);
    let bad: Vec<Job> = codes.iter().map(|(fault, _)| faulty(&stack, fault)).collect();
    for job in &bad {
        jobs.insert(jobs.len() / 2, job.clone());
    }
    publisher.submit_all(stack.model(), &jobs, Codec::Json).await;
    for job in &jobs {
        let expected = bad.iter().zip(codes).find(|(bad, _)| bad.id() == job.id());
        let record = result(&mut redis, job.id()).await;
        assert_eq!(record.error_code(), expected.map_or("", |(_, (_, code))| code));
    }
}

#[tokio::test]
async fn a_worker_that_ends_in_good_order_leaves_no_journal() {
    let stack = Stack::start().await.tiny();
    let mut worker = stack.worker(&[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = innocent(&stack, 100);
    publisher.submit_all(stack.model(), &jobs, Codec::Msgpack).await;
    result(&mut redis, jobs[99].id()).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
    let journals: Vec<String> = redis.keys("forebay:computing*").await.unwrap();
    assert!(journals.is_empty(), "{journals:?}");
}
