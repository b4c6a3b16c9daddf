//! How records are written: once, for a time, and announced to those who wait.

use std::time::Duration;

use forebay_tests::job::{Codec, Job, now_ms, properties};
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::publisher::{BATCH, INTERACTIVE};
use forebay_tests::record::{find, result, result_key};
use forebay_tests::stack::{SharedFleet, Stack};
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use redis::AsyncCommands as _;

#[tokio::test]
async fn a_duplicate_delivery_leaves_the_record_as_it_was() {
    let stack = Stack::start().await;
    let _worker = stack.worker(&[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let job = Job::embed("first").with("result_ttl_s", 600);
    publisher.submit(BATCH, &job, Codec::Msgpack).await;
    let first = result(&mut redis, job.id()).await;

    let again = job.clone().with("input", "second").with("result_ttl_s", 60_000);
    publisher.submit(BATCH, &again, Codec::Json).await;
    let after = Job::embed("after");
    publisher.submit(BATCH, &after, Codec::Msgpack).await;
    result(&mut redis, after.id()).await;
    let queue = "forebay.jobs.all-minilm-l6-v2.batch";
    let settled = async || {
        let counts = stack.vhost.queue(queue).unwrap();
        counts["messages"] == 0 && counts["message_stats"]["ack"].as_u64() >= Some(3)
    };
    until_true("all three deliveries are acknowledged", SOON, settled).await;

    let now = find(&mut redis, job.id()).await.unwrap();
    assert_eq!(now.raw, first.raw);
    let ttl: i64 = redis.ttl(result_key(job.id())).await.unwrap();
    assert!(ttl <= 600, "its time to live became {ttl}");
}

#[tokio::test]
async fn a_record_lives_for_a_day_or_as_long_as_the_job_says() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let day = Job::embed("text");
    let minutes = Job::embed("text").with("result_ttl_s", 300);
    let refused = Job::embed(7).with("result_ttl_s", 300);
    for (job, ttl_s) in [(day, 86_400), (minutes, 300), (refused, 300)] {
        publisher.submit(BATCH, &job, Codec::Json).await;
        result(&mut redis, job.id()).await;
        let ttl: i64 = redis.ttl(result_key(job.id())).await.unwrap();
        assert!((ttl_s - 60..=ttl_s).contains(&ttl), "{ttl} for {}", job.fields());
    }
}

#[tokio::test]
async fn a_job_past_its_time_expires() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for codec in Codec::BOTH {
        let late = Job::embed("text")
            .with("submitted_at_ms", now_ms() - 60_000)
            .with("expires_in_ms", 1_000);
        let timely = Job::embed("text").with("expires_in_ms", 600_000);
        for job in [&late, &timely] {
            publisher.submit(BATCH, job, codec).await;
        }
        let record = result(&mut redis, late.id()).await;
        assert_eq!((record.state(), record.error_code()), ("expired", "deadline_exceeded"));
        assert_eq!(result(&mut redis, timely.id()).await.state(), "succeeded");
    }
}

#[tokio::test]
async fn a_cancelled_job_is_not_done() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for codec in Codec::BOTH {
        let job = Job::embed("text");
        let () = redis.set_ex(format!("forebay:cancel:{}", job.id()), "1", 600).await.unwrap();
        publisher.submit(BATCH, &job, codec).await;
        let record = result(&mut redis, job.id()).await;
        assert_eq!((record.state(), record.error_code()), ("cancelled", "cancelled"));
        assert!(record.fields.get("output").is_none());
    }
}

#[tokio::test]
async fn the_record_is_there_when_its_channel_speaks() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let client = redis::Client::open(fleet.stack.store.url()).unwrap();
    let mut channel = client.get_async_pubsub().await.unwrap();
    channel.subscribe("my-answers").await.unwrap();
    let mut said = channel.on_message();
    let unreadable = Job::embed(7).with("notify", "my-answers");
    for job in [Job::embed("text").with("notify", "my-answers"), unreadable] {
        publisher.submit(INTERACTIVE, &job, Codec::Msgpack).await;
        let message =
            tokio::time::timeout(SOON, said.next()).await.expect("a message in time").unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), job.id());
        assert!(find(&mut redis, job.id()).await.is_some(), "notified before it was written");
    }
}

#[tokio::test]
async fn a_reply_carries_the_record_and_the_correlation_id() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue =
        publisher.channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
    for (codec, job) in [(Codec::Msgpack, Job::embed("text")), (Codec::Json, Job::embed(7))] {
        let asked = properties(job.id(), codec)
            .with_reply_to(queue.name().clone())
            .with_correlation_id("my-4711".into());
        publisher.publish(INTERACTIVE, &job.body(codec), asked).await;
        let reply = until("a reply", SOON, async || {
            let get = publisher.channel.basic_get(queue.name().clone(), BasicGetOptions::default());
            get.await.unwrap().map(|got| got.delivery)
        })
        .await;
        reply.acker.ack(BasicAckOptions::default()).await.unwrap();
        let said =
            |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
        assert_eq!(said(reply.properties.correlation_id()).as_deref(), Some("my-4711"));
        assert_eq!(said(reply.properties.content_type()).as_deref(), Some(codec.content_type()));
        assert_eq!(reply.data, result(&mut redis, job.id()).await.raw);
    }
}

#[tokio::test]
async fn a_reply_queue_that_has_gone_does_no_harm() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for _ in 0..3 {
        let job = Job::embed("text");
        let asked = properties(job.id(), Codec::Json).with_reply_to("no-such-queue".into());
        publisher.publish(INTERACTIVE, &job.body(Codec::Json), asked).await;
        assert_eq!(result(&mut redis, job.id()).await.state(), "succeeded");
    }
}

#[tokio::test]
async fn a_job_of_an_unknown_model_that_waited_for_the_autoscaler_is_answered() {
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let job = Job::embed("text").with("model", "no-such-model");
    publisher.submit("no-such-model", &job, Codec::Json).await;
    let waits = async || stack.vhost.depth("forebay.unroutable") == 1;
    until_true("the job waits among the unroutable", SOON, waits).await;
    let mut autoscaler = stack.autoscaler(&[]).await;
    assert_eq!(result(&mut redis, job.id()).await.error_code(), "model_not_found");
    let empty = async || stack.vhost.depth("forebay.unroutable") == 0;
    until_true("it is acknowledged", SOON, empty).await;
    autoscaler.signal("TERM");
    assert_eq!(autoscaler.exit_code(PATIENT.min(Duration::from_secs(30))).await, 0);
}

#[tokio::test]
async fn a_channel_that_the_worker_may_not_publish_on_costs_no_job_its_result() {
    let stack = Stack::start().await;
    let mut redis = stack.redis().await;
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("worker").arg("on").arg(">pw").arg("~*").arg("+@all");
    let () = acl.arg("resetchannels").query_async(&mut redis).await.unwrap();
    let url = stack.store.url().replace("redis://", "redis://worker:pw@");
    let _worker = stack.worker(&[("FOREBAY_REDIS_URL", url.as_str())]).await;
    let publisher = stack.publisher().await;
    let notified = Job::embed("notified").with("notify", "a-channel-of-another-user");
    publisher.submit(BATCH, &notified, Codec::Json).await;
    assert_eq!(result(&mut redis, notified.id()).await.state(), "succeeded");
    let queue = "forebay.jobs.all-minilm-l6-v2.batch";
    let empty = async || stack.vhost.depth(queue) == 0;
    until_true("and it is acknowledged", SOON, empty).await;
}
