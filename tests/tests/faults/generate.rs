//! Workers that die amid generations: nothing is lost, and no token is another one.

use forebay_tests::generator::{GENERATOR, ids, long, stream, whole, worker};
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, until_true};
use forebay_tests::record::result_within;
use forebay_tests::stack::Stack;

const KILLED: i32 = 128 + 9;

#[tokio::test]
async fn a_kill_amid_generations_loses_no_job_and_changes_no_token() {
    let stack = Stack::start().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs: Vec<Job> = (0..8).map(|seed| long(seed, 120)).collect();
    let mut first = worker(&stack, &[("FOREBAY_FAIL_POINTS", "after_step=kill:60")]).await;
    publisher.submit_all(GENERATOR, &jobs, Codec::Msgpack).await;
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "{}", first.log());
    let mut written = Vec::new();
    for job in &jobs {
        written.push(whole(&stream(&mut redis, job.id()).await).0);
    }
    assert!(written.iter().any(|ids| ids.len() >= 16), "{written:?}");

    let _second = worker(&stack, &[]).await;
    let mut after_death = Vec::new();
    for (job, written) in jobs.iter().zip(&written) {
        let record = result_within(&mut redis, job.id(), 2 * PATIENT).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        let ids = ids(&record.fields["output"]);
        assert_eq!(ids[..written.len()], written[..]);
        assert_eq!(whole(&stream(&mut redis, job.id()).await).0, ids);
        after_death.push(ids);
    }
    let again: Vec<Job> = (0..8).map(|seed| long(seed, 120)).collect();
    publisher.submit_all(GENERATOR, &again, Codec::Msgpack).await;
    for (job, expected) in again.iter().zip(&after_death) {
        let record = result_within(&mut redis, job.id(), PATIENT).await;
        assert_eq!(ids(&record.fields["output"]), *expected);
    }
}

#[tokio::test]
async fn an_output_whose_worker_died_before_its_result_is_answered_without_computing() {
    let stack = Stack::start().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let job = long(7, 100);
    let mut first = worker(&stack, &[("FOREBAY_FAIL_POINTS", "after_result_write=kill")]).await;
    publisher.submit(GENERATOR, &job, Codec::Json).await;
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "{}", first.log());
    until_true("its tokens are all there", PATIENT, async || {
        whole(&stream(&mut redis, job.id()).await).0.len() == 100
    })
    .await;
    let () = redis::cmd("DEL")
        .arg(format!("forebay:result:{}", job.id()))
        .query_async(&mut redis)
        .await
        .unwrap();
    let _second = worker(&stack, &[]).await;
    let record = result_within(&mut redis, job.id(), PATIENT).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(ids(&record.fields["output"]), whole(&stream(&mut redis, job.id()).await).0);
    assert_eq!(record.count("/usage/device_us"), 0);
}
