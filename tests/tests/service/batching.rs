//! How jobs share the device: together when small, apart when large, the urgent first.

use forebay_tests::job::{Codec, Job, passages};
use forebay_tests::oracle::{COSINE_MIN, Row, cosine, rows};
use forebay_tests::patience::{PATIENT, until_true};
use forebay_tests::publisher::{BATCH, INTERACTIVE};
use forebay_tests::record::{finished, result, result_within};
use forebay_tests::stack::{SharedFleet, Stack};
use serde_json::json;

#[tokio::test]
async fn small_jobs_share_batches() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let jobs: Vec<Job> = (0..200).map(|n| Job::embed(format!("small job {n}"))).collect();
    publisher.submit_all(BATCH, &jobs, Codec::Msgpack).await;
    let mut largest = 0;
    for job in &jobs {
        let record = result(&mut redis, job.id()).await;
        assert_eq!(record.state(), "succeeded");
        largest = largest.max(record.count("/timing/batch_size"));
    }
    assert!(largest > 1, "200 jobs, and each in a batch of its own");
}

#[tokio::test]
async fn a_job_of_2048_inputs_is_split_and_comes_back_in_order() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let short: Vec<Row> = rows().into_iter().filter(|row| row.text.len() < 60).collect();
    // Neither sorted nor periodic in the size of a batch.
    let order: Vec<&Row> = (0..2_048).map(|n| &short[(n * 7 + n / 31) % short.len()]).collect();
    let texts: Vec<&str> = order.iter().map(|row| row.text.as_str()).collect();
    let job = Job::embed(json!(texts));
    publisher.submit(BATCH, &job, Codec::Msgpack).await;
    let record = result_within(&mut redis, job.id(), PATIENT).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.vectors.len(), 2_048);
    for (n, (vector, row)) in record.vectors.iter().zip(order).enumerate() {
        let cosine = cosine(vector, &row.embedding);
        assert!(cosine >= COSINE_MIN, "input {n}, {:?}: {cosine}", row.text);
    }
    assert!(record.count("/timing/batch_size") < 2_048, "it was not split");
}

#[tokio::test]
async fn an_interactive_job_overtakes_a_backlog() {
    const BACKLOG: usize = 600;
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = passages(BACKLOG);
    publisher.submit_all(BATCH, &jobs, Codec::Msgpack).await;
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();
    // Small batches: what is already packed when the urgent job comes goes first.
    let _worker = stack.worker(&[("FOREBAY_WORKER__BATCH_TOKENS_MAX", "512")]).await;
    until_true("the backlog is being worked on", PATIENT, async || {
        finished(&mut redis, &ids).await > 0
    })
    .await;

    let before = finished(&mut redis, &ids).await;
    let urgent = Job::embed("urgent");
    publisher.submit(INTERACTIVE, &urgent, Codec::Msgpack).await;
    assert_eq!(result_within(&mut redis, urgent.id(), PATIENT).await.state(), "succeeded");
    let after = finished(&mut redis, &ids).await;
    assert!(
        after - before < (BACKLOG - before) / 2,
        "it waited for {} of {BACKLOG} jobs",
        after - before
    );
}

#[tokio::test]
async fn a_bad_job_does_not_fail_those_that_came_with_it() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let refused = |n: usize| n.is_multiple_of(5);
    let job = |n: usize| match n {
        n if refused(n) => {
            Job::embed("word ".repeat(600)).with("params", json!({"truncate": false}))
        }
        n => Job::embed(format!("good {n}")),
    };
    let jobs: Vec<Job> = (0..50).map(job).collect();
    publisher.submit_all(BATCH, &jobs, Codec::Json).await;
    for (n, job) in jobs.iter().enumerate() {
        let expected = if refused(n) { "failed" } else { "succeeded" };
        assert_eq!(result(&mut redis, job.id()).await.state(), expected, "job {n}");
    }
}
