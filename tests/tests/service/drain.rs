//! Workers that come and go in the middle of work: nothing is lost, and a clean exit is clean.

use std::collections::BTreeSet;

use forebay_tests::job::{Codec, Job, passages};
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::{Record, find, finished};
use forebay_tests::stack::{GRACE, Stack};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

const QUEUE: &str = "forebay.jobs.all-minilm-l6-v2.batch";

#[tokio::test]
async fn a_worker_asked_to_stop_among_a_thousand_jobs_leaves_none_missing() {
    const JOBS: usize = 1_000;
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = passages(JOBS);
    publisher.submit_all(BATCH, &jobs, Codec::Msgpack).await;
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();

    let mut first = stack.worker(&[]).await;
    until_true("a tenth is done", PATIENT, async || finished(&mut redis, &ids).await >= JOBS / 10)
        .await;
    first.signal("TERM");
    assert_eq!(first.exit_code(GRACE).await, 0);
    let done = finished(&mut redis, &ids).await;
    assert!(done < JOBS, "the first worker had finished all before it was asked to stop");
    assert_eq!(registered(&mut redis).await, 0, "a clean exit takes its record away");
    // A few more may be: a quorum queue forgets acknowledgements that were on their way as the link closed.
    let handed_back = async || stack.vhost.depth(QUEUE) >= (JOBS - done) as u64;
    until_true("the unfinished jobs are back in the queue", SOON, handed_back).await;

    let _second = stack.worker(&[]).await;
    until_true("all are done", PATIENT, async || finished(&mut redis, &ids).await == JOBS).await;
    let workers = assert_all_succeeded(&mut redis, &ids).await;
    assert_eq!(workers.len(), 2, "{workers:?}");
}

#[tokio::test]
async fn a_worker_whose_grace_is_over_hands_the_rest_back() {
    const JOBS: usize = 300;
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    // 256 tokens each: far more work than fits into the second of grace, on any processor.
    let jobs: Vec<Job> =
        (0..JOBS).map(|n| Job::embed(format!("{n} {}", "word ".repeat(300)))).collect();
    publisher.submit_all(BATCH, &jobs, Codec::Msgpack).await;
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();

    let hurried = [("FOREBAY_WORKER__GRACE_S", "1"), ("FOREBAY_WORKER__BATCH_TOKENS_MAX", "512")];
    let mut worker = stack.worker(&hurried).await;
    until_true("it is at work", PATIENT, async || finished(&mut redis, &ids).await > 0).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(GRACE).await, 0);
    let undone = JOBS - finished(&mut redis, &ids).await;
    assert!(undone > 0, "everything fitted into a second");
    let handed_back = async || stack.vhost.depth(QUEUE) >= undone as u64;
    until_true("the unfinished jobs are back in the queue", SOON, handed_back).await;
    assert_eq!(registered(&mut redis).await, 0);
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_loses_nothing() {
    const JOBS: usize = 300;
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = passages(JOBS);
    publisher.submit_all(BATCH, &jobs, Codec::Msgpack).await;
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();

    let mut first = stack.worker(&[]).await;
    until_true("a tenth is done", PATIENT, async || finished(&mut redis, &ids).await >= JOBS / 10)
        .await;
    first.signal("KILL");
    assert_eq!(first.exit_code(SOON).await, 128 + 9);
    assert!(finished(&mut redis, &ids).await < JOBS, "it had finished all before it was killed");

    let _second = stack.worker(&[]).await;
    until_true("all are done", PATIENT, async || finished(&mut redis, &ids).await == JOBS).await;
    assert_all_succeeded(&mut redis, &ids).await;
    let one_left = async || registered(&mut redis).await == 1;
    until_true("the dead worker's record is gone", SOON, one_left).await;
}

#[tokio::test]
async fn an_idle_worker_and_an_autoscaler_stop_at_once() {
    let stack = Stack::start().await;
    let mut worker = stack.worker(&[]).await;
    let mut autoscaler = stack.autoscaler(&[]).await;
    for service in [&mut worker, &mut autoscaler] {
        service.signal("TERM");
        assert_eq!(service.exit_code(SOON).await, 0);
    }
    assert_eq!(registered(&mut stack.redis().await).await, 0);
}

async fn registered(redis: &mut MultiplexedConnection) -> usize {
    let keys: Vec<String> = redis.keys("forebay:worker:*").await.unwrap();
    keys.len()
}

/// Every job's record says `succeeded`; answers who did them.
async fn assert_all_succeeded(redis: &mut MultiplexedConnection, ids: &[&str]) -> BTreeSet<String> {
    let mut workers = BTreeSet::new();
    for id in ids {
        let record: Record = find(redis, id).await.unwrap();
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        assert_eq!(record.fields["id"], *id);
        workers.insert(record.fields["worker"].as_str().unwrap().to_owned());
    }
    workers
}
