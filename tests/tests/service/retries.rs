//! Retries: those of one model never wait for another's.

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::publisher::Publisher;
use forebay_tests::record::result;
use forebay_tests::stack::Stack;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;

/// More than the 32 messages that RabbitMQ moves out of a queue at a time.
const DUE: u64 = 40;
const MOVED_AT_A_TIME: u64 = 32;
const LENGTH_MAX: (&str, &str) = ("FOREBAY_QUEUES__LENGTH_MAX", "60");

/// Publishes one job as a worker does that tries it again: due at once.
async fn retry(publisher: &Publisher, exchange: &str, key: &str) {
    let job = Job::embed("text");
    let again = properties(job.id(), Codec::Json).with_expiration("1".into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let body = job.body(Codec::Json);
    let channel = &publisher.channel;
    let sent = channel.basic_publish(exchange.into(), key.into(), options, &body, again);
    let confirmation = sent.await.unwrap().await.unwrap();
    assert!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
}

#[tokio::test]
async fn a_full_queue_of_one_model_holds_up_no_retry_of_another() {
    let stack = Stack::start().await;
    // It declares the queues of the other model.
    let mut declare = stack.program("forebay", &[LENGTH_MAX]);
    declare.arg("queues");
    assert_eq!(stack.run(declare).await.code, 0);
    let stack = stack.tiny();
    let _worker = stack.worker(&[LENGTH_MAX]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    // No worker takes the jobs of this model.
    let mut is_full = false;
    for _ in 0..200 {
        let job = Job::embed("text");
        let body = job.body(Codec::Json);
        let sent = publisher.try_publish(MODEL, &body, properties(job.id(), Codec::Json));
        is_full = sent.await.unwrap().is_nack();
        if is_full {
            break;
        }
    }
    assert!(is_full, "its queue took 200 jobs");
    for _ in 0..DUE {
        retry(&publisher, "forebay.retry.1s.models", MODEL).await;
    }
    // Its queue may have had room for some of them.
    let retries = format!("forebay.retry.1s.{MODEL}");
    let stuck = async || stack.vhost.depth(&retries) > MOVED_AT_A_TIME;
    until_true("its retries are due and find no room", SOON, stuck).await;

    let job = Job::embed("fails once").of(TINY).faulty("error:1");
    publisher.submit(TINY, &job, Codec::Json).await;
    let record = result(&mut redis, job.id()).await;
    assert_eq!((record.state(), record.count("/attempts")), ("succeeded", 2), "{}", record.fields);
}

#[tokio::test]
async fn retries_of_a_model_without_a_queue_of_its_own_and_those_of_earlier_versions_come_back() {
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    retry(&publisher, "forebay.retry.1s", MODEL).await;
    let back = async || stack.vhost.depth(&format!("forebay.jobs.{MODEL}.batch")) == 1;
    until_true("the retry of an earlier version is back", SOON, back).await;

    retry(&publisher, "forebay.retry.1s.models", "no-such-model").await;
    let settled = async || stack.vhost.depth("forebay.unroutable") == 1;
    until_true("it goes where unknown models go", SOON, settled).await;
}
