//! Brokers that restart, run out of memory, lose patience or lose their queues.

use std::time::{Duration, Instant};

use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::patience::{PATIENT, SOON, at, until_true};
use forebay_tests::record::{find, result};
use forebay_tests::stack::Stack;
use lapin::Confirmation;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;

use forebay_tests::workload::{Lent, SMALL_BATCHES, Workload, says};

/// `RabbitMQ` writes to the disk which quorum queues there are a second or so after they are declared. A node
/// that is killed sooner forgets the last of them, with all that is in it.
const DECLARED_FOR_GOOD: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_broker_that_is_killed_in_the_middle_of_work_loses_nothing() {
    let mut node = Lent::node().await;
    let mut workload = Workload::on(Stack::on(node.vhost().await).await.tiny()).await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    at(Instant::now() + DECLARED_FOR_GOOD).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    node.kill();
    says(&worker, 503).await;
    node.start().await;
    says(&worker, 200).await;
    workload.publisher = workload.stack.publisher().await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_delivery_that_outlasts_the_broker_s_patience_is_done_all_the_same() {
    let node = Lent::node().await;
    let patience = |ms: u32, tick_ms: u32| {
        format!(
            "application:set_env(rabbit, consumer_timeout, {ms}), \
             application:set_env(rabbit, channel_tick_interval, {tick_ms})."
        )
    };
    node.ctl(&["eval", &patience(1_500, 500)]).await;
    let mut workload = Workload::on(Stack::on(node.vhost().await).await.tiny()).await;
    let mut worker = workload.stack.worker(&[]).await;
    workload.stack.store.freeze();
    workload.publish(50).await;
    let lost = async || worker.log().contains("subscription lost");
    until_true("the broker closes the channel", PATIENT, lost).await;
    workload.stack.store.thaw();
    node.ctl(&["eval", &patience(1_800_000, 60_000)]).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_broker_that_takes_no_publishes_still_hands_out_work() {
    let node = Lent::node().await;
    let mut workload = Workload::on(Stack::on(node.vhost().await).await.tiny()).await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declared =
        workload.publisher.channel.queue_declare("".into(), options, FieldTable::default()).await;
    let replies = declared.unwrap().name().clone();
    let asks = workload.job("with a reply");
    let asked = properties(asks.id(), Codec::Json).with_reply_to(replies.clone());
    workload.publisher.publish(workload.stack.model(), &asks.body(Codec::Json), asked).await;
    workload.publish(300).await;

    node.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    let worker = workload.stack.worker(&[]).await;
    // The worker has a reply to publish by then, and computes and acknowledges all the same.
    workload.all_succeed().await;
    assert_eq!(result(&mut workload.redis, asks.id()).await.state(), "succeeded");
    let mut command = workload.stack.program("forebay", &[]);
    command.args(["submit", "--when-full", "fail", "--model", workload.stack.model(), "text"]);
    let refused = workload.stack.run(command).await;
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.errors.contains("memory"), "{refused:?}");

    says(&worker, 200).await;
    comes_to_rest_with(&mut workload, &replies).await;
}

/// Waits for the reply that fills the queue of replies, empties it, and waits until everything is done.
async fn comes_to_rest_with(workload: &mut Workload, replies: &lapin::types::ShortString) {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let filled = async || {
        let channel = &workload.publisher.channel;
        let declared = channel.queue_declare(replies.clone(), options, FieldTable::default());
        declared.await.unwrap().message_count() == 1
    };
    until_true("the reply comes", PATIENT, filled).await;
    let options = QueuePurgeOptions::default();
    workload.publisher.channel.queue_purge(replies.clone(), options).await.unwrap();
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_publish_to_an_exchange_that_is_gone_harms_nothing_else() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    let channel = &workload.publisher.channel;
    let deleted =
        channel.exchange_delete("forebay.retry.1s.models".into(), ExchangeDeleteOptions::default());
    deleted.await.unwrap();
    // The broker closes the channel on which the worker publishes this one's second try.
    let again = workload.job("fails once").faulty("error:1");
    workload.submit(&again).await;
    workload.publish(100).await;
    workload.all_succeed().await;
    assert!(find(&mut workload.redis, again.id()).await.is_none());

    // Each program that connects declares what is missing.
    assert_eq!(workload.stack.forebay(&["queues"]).await.code, 0);
    assert_eq!(result(&mut workload.redis, again.id()).await.state(), "succeeded");
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_consumer_whose_queue_was_deleted_comes_back_with_the_queue() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    workload.stack.vhost.delete_queue(&workload.stack.batch_queue());
    let lost = async || worker.log().contains("subscription lost");
    until_true("the broker cancels the consumer", SOON, lost).await;
    assert_eq!(workload.stack.forebay(&["queues"]).await.code, 0, "it declares the queue again");
    workload.publish(100).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_it_took_is_done() {
    let short = [("FOREBAY_QUEUES__LENGTH_MAX", "10")];
    let stack = Stack::start().await.tiny();
    let mut command = stack.program("forebay", &short);
    command.arg("queues");
    assert_eq!(stack.run(command).await.code, 0);
    let mut redis = stack.redis().await;
    let publisher = stack.publisher().await;
    let mut taken = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        let job = Job::embed(format!("text {n}")).of(stack.model());
        let body = job.body(Codec::Json);
        let asked = properties(job.id(), Codec::Json);
        match publisher.try_publish(stack.model(), &body, asked).await.unwrap() {
            Confirmation::Ack(None) => taken.push(job),
            _ => refused += 1,
        }
    }
    assert!(taken.len() >= 10 && refused >= 10, "{} taken, {refused} refused", taken.len());
    let mut command = stack.program("forebay", &short);
    command.args(["submit", "--when-full", "fail", "--model", stack.model(), "one too many"]);
    let said = stack.run(command).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("full"), "{said:?}");

    let _worker = stack.worker(&short).await;
    for job in &taken {
        assert_eq!(result(&mut redis, job.id()).await.state(), "succeeded");
    }
}
