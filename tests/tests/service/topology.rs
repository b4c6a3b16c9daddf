//! Queues that exist with other arguments: a clear error at the start, which names queue and argument.

use forebay_tests::patience::PATIENT;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

const QUEUE: &str = "forebay.jobs.all-minilm-l6-v2.batch";

/// The worker ends by itself, as for any wrong configuration, and says what is in its way.
async fn assert_named(mut worker: Service, queue: &str, argument: &str) {
    let code = worker.exit_code(PATIENT).await;
    let log = worker.log();
    let last = log.lines().last().unwrap_or_default();
    assert_eq!(code, 2, "{log}");
    assert!(last.contains(queue), "the queue is not named:\n{last}");
    assert!(last.contains(argument), "{argument} is not named:\n{last}");
}

#[tokio::test]
async fn a_worker_names_a_queue_of_another_kind() {
    let stack = Stack::start().await;
    let channel = stack.publisher().await.channel;
    let durable = QueueDeclareOptions::durable();
    let none = FieldTable::default();
    channel.queue_declare(QUEUE.into(), durable, none).await.unwrap();
    assert_named(stack.starting_worker(&[]), QUEUE, "'x-").await;
}

#[tokio::test]
async fn a_worker_names_the_setting_in_which_it_differs_from_the_rest_of_the_fleet() {
    let stack = Stack::declared().await;
    let worker = stack.starting_worker(&[("FOREBAY_QUEUES__LENGTH_MAX", "7")]);
    assert_named(worker, "`forebay.", "'x-max-length'").await;
}

#[tokio::test]
async fn a_worker_names_a_limit_in_bytes_that_the_queues_were_declared_without() {
    let stack = Stack::declared().await;
    let worker = stack.starting_worker(&[("FOREBAY_QUEUES__LENGTH_BYTES_MAX", "1000000")]);
    assert_named(worker, "`forebay.", "'x-max-length-bytes'").await;
}
