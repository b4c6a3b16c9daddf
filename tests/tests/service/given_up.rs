//! Jobs that the broker gave up, in the hands of an autoscaler that waits for the workers that may have them.

use forebay_tests::job::{Codec, Job, now_ms, passages, properties};
use forebay_tests::patience::{PATIENT, until_true};
use forebay_tests::record::{finished, result};
use forebay_tests::stack::Stack;
use lapin::options::BasicPublishOptions;
use redis::AsyncCommands as _;
use serde_json::json;

const QUEUE: &str = "forebay.dead.settle";
/// The most messages of a queue that an autoscaler holds.
const HELD_MAX: usize = 1_024;
const MORE: usize = 100;

#[tokio::test]
async fn an_autoscaler_holds_so_many_jobs_that_a_worker_has_and_leaves_the_others_in_their_queue() {
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = passages(HELD_MAX + MORE);
    let ids: Vec<&str> = jobs.iter().map(Job::id).collect();
    // A worker that lives has all of them in its journal.
    let () = redis.set("forebay:worker:alive", "a record").await.unwrap();
    let () = redis.set("forebay:computing:alive", json!({"1": ids}).to_string()).await.unwrap();
    let () = redis.zadd("forebay:computing", "alive", now_ms()).await.unwrap();
    for job in &jobs {
        let options = BasicPublishOptions::default();
        let body = job.body(Codec::Json);
        let with = properties(job.id(), Codec::Json);
        let sent = publisher.channel.basic_publish(
            "forebay.dead".into(),
            "m".into(),
            options,
            &body,
            with,
        );
        sent.await.expect("publish").await.expect("a confirm");
    }
    let _autoscaler = stack.autoscaler(&[]).await;
    until_true("it holds as many as it may", PATIENT, async || {
        let seen = stack.vhost.queue(QUEUE).unwrap_or_default();
        let count = |field: &str| seen[field].as_u64();
        count("messages_unacknowledged") == Some(HELD_MAX as u64)
            && count("messages_ready") == Some(MORE as u64)
    })
    .await;
    assert_eq!(finished(&mut redis, &ids).await, 0, "answered while a worker has it");

    let () = redis.del("forebay:computing:alive").await.unwrap();
    until_true("all are answered", PATIENT, async || {
        finished(&mut redis, &ids).await == jobs.len()
    })
    .await;
    assert_eq!(result(&mut redis, ids[0]).await.error_code(), "attempts_exhausted");
    until_true("none is left", PATIENT, async || stack.vhost.depth(QUEUE) == 0).await;
}
