//! Links that stall, lose and break between programs and their servers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_tests::patience::{PATIENT, SOON, at, until_true};
use forebay_tests::record::{find, result};
use forebay_tests::relay::Mode;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use forebay_tests::workload::{SMALL_BATCHES, Workload, says};

#[tokio::test]
async fn a_link_that_stalls_past_the_heartbeats_is_replaced() {
    let mut workload = Workload::relayed().await;
    let heartbeat = ("FOREBAY_BROKER__HEARTBEAT_S", "1");
    let mut worker = workload.stack.worker(&[SMALL_BATCHES, heartbeat]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    let broker = &workload.stack.relays().broker;
    broker.set(Mode::Stall);
    says(&worker, 503).await;
    broker.heal();
    says(&worker, 200).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_confirmation_that_is_lost_makes_a_second_message_and_one_record() {
    const JOBS: usize = 20;
    let mut workload = Workload::relayed().await;
    let texts = workload.stack.store.folder().join("texts.jsonl");
    let lines: Vec<String> = (0..JOBS).map(|n| format!("{{\"text\": \"text {n}\"}}")).collect();
    std::fs::write(&texts, lines.join("\n")).unwrap();
    let broker = &workload.stack.relays().broker;
    // Slow, so that there is a moment between a message's arrival and its confirmation's.
    broker.set(Mode::Delay(Duration::from_millis(100)));
    let path = texts.to_str().unwrap();
    let patient = [("FOREBAY_BROKER__CONNECT_TIMEOUT_MS", "60000")];
    let mut command = workload.stack.program("forebay", &patient);
    command.args(["submit", "--model", workload.stack.model(), "--file", path]);
    let submitting = workload.stack.run(command);
    let losing = async {
        until_true("a message arrives", SOON, async || ready(&workload).await > 0).await;
        broker.set(Mode::LoseReplies);
        // Its confirmation is on its way through the slow link, and lost at the end of it.
        at(Instant::now() + Duration::from_millis(500)).await;
        broker.heal();
    };
    let (submitted, ()) = tokio::join!(submitting, losing);
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let ids: BTreeSet<&str> = submitted.output.split_whitespace().collect();
    assert_eq!(ids.len(), JOBS);
    assert!(ready(&workload).await > JOBS as u32, "no message was sent twice");

    let _worker = workload.stack.worker(&[]).await;
    for id in &ids {
        assert_eq!(result(&mut workload.redis, id).await.state(), "succeeded");
    }
    workload.comes_to_rest().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("forebay:result:*").query_async(&mut workload.redis).await.unwrap();
    assert_eq!(keys.len(), JOBS + 1, "one for each, and one for the job at the end");
}

/// Messages that wait in the batch lane, as the broker knows at once.
async fn ready(workload: &Workload) -> u32 {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = workload.stack.batch_queue().into();
    let none = FieldTable::default();
    let declared = workload.publisher.channel.queue_declare(queue, options, none).await;
    declared.unwrap().message_count()
}

#[tokio::test]
async fn two_workers_with_one_job_write_one_record_and_both_go_on() {
    let mut workload = Workload::relayed().await;
    let direct_broker = workload.stack.vhost.amqp_url();
    let direct_store = workload.stack.store.url();
    let direct = [
        ("FOREBAY_AMQP_URL", direct_broker.as_str()),
        ("FOREBAY_REDIS_URL", direct_store.as_str()),
    ];
    // The first has its jobs computed, or nearly, when it loses both of its servers. It begins with seven at most.
    let mut first = workload.stack.worker(&[]).await;
    let relays = workload.stack.relays();
    relays.store.set(Mode::LoseReplies);
    workload.publish(6).await;
    let taken = async || workload.stack.vhost.queue(&workload.stack.batch_queue()).unwrap();
    until_true("the first has them", SOON, async || taken().await["messages_unacknowledged"] == 6)
        .await;
    let mut second = workload.stack.worker(&direct).await;
    let relays = workload.stack.relays();
    relays.broker.set(Mode::Cut);
    workload.all_succeed().await;
    let mut before = Vec::new();
    for job in &workload.jobs {
        before.push(find(&mut workload.redis, job.id()).await.unwrap().raw);
    }
    // Now the first writes what it has, and acknowledges on a channel that is gone.
    let relays = workload.stack.relays();
    relays.store.heal();
    relays.broker.heal();
    says(&first, 200).await;
    workload.comes_to_rest().await;
    for (job, before) in workload.jobs.iter().zip(before) {
        assert_eq!(find(&mut workload.redis, job.id()).await.unwrap().raw, before);
    }
    assert!(first.is_running() && second.is_running());
}

#[tokio::test]
async fn links_that_break_again_and_again_lose_nothing() {
    let mut workload = Workload::relayed().await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    for round in 0..6 {
        workload.publish(150).await;
        let relays = workload.stack.relays();
        relays.broker.drop_connections();
        if round % 2 == 1 {
            relays.store.drop_connections();
        }
        let done = workload.finished().await;
        until_true("some more are done", PATIENT, async || workload.finished().await > done).await;
    }
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}
