//! Full queues: a submission fails at once or waits for room, as it asks.

use std::process::Command;

use forebay_tests::MODEL;
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::service::Service;
use forebay_tests::stack::{Finished, Stack};
use lapin::options::{BasicAckOptions, BasicGetOptions};

const BATCH_QUEUE: &str = "forebay.jobs.all-minilm-l6-v2.batch";
const LENGTH_MAX: (&str, &str) = ("FOREBAY_QUEUES__LENGTH_MAX", "5");
/// More than that, so that the queue is full afterwards. The broker may still take all of them, since it looks at the
/// length only now and then, or refuse the last ones.
const MORE_THAN_FULL: usize = 8;

fn submitting(stack: &Stack, texts: usize, arguments: &[&str]) -> Command {
    let mut command = stack.program("forebay", &[LENGTH_MAX]);
    command.args(["submit", "--model", MODEL]).args(arguments);
    command.args((0..texts).map(|n| format!("text {n}")));
    command
}

async fn submit(stack: &Stack, texts: usize, arguments: &[&str]) -> Finished {
    stack.run(submitting(stack, texts, arguments)).await
}

/// A fleet without workers whose batch queue is full, and how many jobs are in it.
async fn full() -> (Stack, usize) {
    let stack = Stack::start().await;
    let filled = submit(&stack, MORE_THAN_FULL, &["--when-full", "fail"]).await;
    assert!(filled.code == 0 || filled.errors.contains("is full"), "{filled:?}");
    let accepted = filled.output.lines().count();
    assert!(accepted >= 5, "{filled:?}");
    (stack, accepted)
}

/// Takes as many messages out of the batch queue, as a worker would.
async fn take(stack: &Stack, count: usize) {
    let publisher = stack.publisher().await;
    for n in 0..count {
        let message = until(&format!("message {n} is there"), SOON, async || {
            let get = publisher.channel.basic_get(BATCH_QUEUE.into(), BasicGetOptions::default());
            get.await.expect("ask for a message")
        })
        .await;
        message.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_fails_a_submission_at_once_that_does_not_want_to_wait() {
    let (stack, _) = full().await;
    let refused = submit(&stack, 3, &["--when-full", "fail"]).await;
    assert_eq!((refused.code, refused.output.as_str()), (1, ""), "{refused:?}");
    for named in ["batch", MODEL, "full", "workers"] {
        assert!(refused.errors.contains(named), "{named}: {refused:?}");
    }
}

#[tokio::test]
async fn a_submit_that_waits_goes_on_by_itself_when_there_is_room() {
    let (stack, accepted) = full().await;
    let mut waits = Service::start("forebay", submitting(&stack, 20, &[]), stack.store.folder());
    let waits_aloud = async || waits.log().contains("queue full, waiting for room");
    until_true("it says what it waits for", SOON, waits_aloud).await;
    assert!(waits.is_running());
    take(&stack, accepted + 20).await;
    assert_eq!(waits.exit_code(SOON).await, 0);
}

#[tokio::test]
async fn waiting_for_room_ends_when_its_time_is_up() {
    let (stack, _) = full().await;
    let refused = submit(&stack, 3, &["--full-timeout", "1s"]).await;
    assert_eq!((refused.code, refused.output.as_str()), (1, ""), "{refused:?}");
    for named in ["batch", "full", "1.0 s"] {
        assert!(refused.errors.contains(named), "{named}: {refused:?}");
    }
}

#[tokio::test]
async fn a_submission_that_waits_for_room_can_be_interrupted() {
    let (stack, _) = full().await;
    let mut waits = Service::start("forebay", submitting(&stack, 3, &[]), stack.store.folder());
    let waits_aloud = async || waits.log().contains("queue full, waiting for room");
    until_true("it says what it waits for", SOON, waits_aloud).await;
    waits.signal("INT");
    assert_eq!(waits.exit_code(SOON).await, 1);
    assert!(waits.log().contains("interrupted"), "{}", waits.log());
}

#[tokio::test]
async fn a_queue_that_is_full_by_its_bytes_refuses_a_submission_too() {
    let stack = Stack::start().await;
    let text = "water ".repeat(2_000);
    let submit = async || {
        let mut command =
            stack.program("forebay", &[("FOREBAY_QUEUES__LENGTH_BYTES_MAX", "50000")]);
        command.args(["submit", "--model", MODEL, "--when-full", "fail", &text]);
        stack.run(command).await
    };
    assert_eq!(submit().await.code, 0, "the first one fits");
    // The broker looks at the size only now and then.
    let refused = until("a submission is refused", SOON, async || {
        let finished = submit().await;
        (finished.code != 0).then_some(finished)
    })
    .await;
    assert!(refused.errors.contains("full"), "{refused:?}");
    let held = stack.vhost.depth(BATCH_QUEUE);
    assert!(held < 12, "{held} jobs of 12 kB are in a queue for 50 kB");
}
