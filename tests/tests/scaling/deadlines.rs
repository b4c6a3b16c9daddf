//! Deadlines are kept while no worker runs, wherever in its queue a job waits.

use std::time::{Duration, Instant};

use forebay_tests::job::{Codec, Job, now_ms, properties};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::pools::pool;
use forebay_tests::record::{find, result, result_within};
use forebay_tests::stack::Stack;

use super::size::SERVERLESS;

#[tokio::test]
async fn a_deadline_behind_a_job_without_one_is_kept_while_no_worker_runs() {
    let stack = Stack::start().await.pooled("min = 0\nmax = 0");
    let autoscaler = stack.autoscaler(&[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let patient = Job::embed("without a deadline").of(TINY);
    publisher.submit(TINY, &patient, Codec::Json).await;
    let began = Instant::now();
    let hasty = Job::embed("in two seconds").of(TINY);
    let hasty = hasty.with("submitted_at_ms", now_ms()).with("expires_in_ms", 2_000);
    let asked = properties(hasty.id(), Codec::Json).with_expiration("2000".into());
    publisher.publish(TINY, &hasty.body(Codec::Json), asked).await;
    let record = result_within(&mut redis, hasty.id(), Duration::from_secs(15)).await;
    assert_eq!((record.state(), record.error_code()), ("expired", "deadline_exceeded"));
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());

    assert!(find(&mut redis, patient.id()).await.is_none());
    // It is held, and still counts as waiting.
    let waits = async || pool(&autoscaler).is_some_and(|pool| pool["jobs_ready"] == 1);
    until_true("one job is reported to wait", SOON, waits).await;
    let hidden = async || {
        let queue = stack.vhost.queue(&stack.batch_queue()).unwrap();
        queue["messages_ready"] == 0 && queue["messages_unacknowledged"] == 1
    };
    until_true("it is the autoscaler that holds it", SOON, hidden).await;

    stack.set_pool(SERVERLESS);
    let done = result_within(&mut redis, patient.id(), PATIENT).await;
    assert_eq!(done.state(), "succeeded", "{}", done.fields);
    let late = Job::embed("a job afterwards").of(TINY);
    publisher.submit(TINY, &late, Codec::Json).await;
    assert_eq!(result(&mut redis, late.id()).await.state(), "succeeded");
}
