//! Stores that are away, slow, full, demoted, replaced or emptied.

use std::time::{Duration, Instant};

use forebay_tests::job::Job;
use forebay_tests::patience::{PATIENT, SOON, at, until, until_true};
use forebay_tests::ports::free_port;
use forebay_tests::record::{find, finished, result_key};
use forebay_tests::relay::Mode;
use forebay_tests::sentinel::Sentinel;
use forebay_tests::store::Store;

use forebay_tests::workload::{SMALL_BATCHES, Workload, says};

/// A minute, by when every pause between two attempts has long grown to its longest.
const OUTAGE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn after_a_long_outage_of_the_store_work_is_back_within_five_seconds() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    workload.stack.store.kill();
    says(&worker, 503).await;
    at(Instant::now() + OUTAGE).await;
    assert!(worker.is_running());
    workload.stack.store.restart().await;
    let back_at = Instant::now();
    workload.redis = workload.stack.redis().await;
    let before = workload.finished().await;
    until_true("results come", PATIENT, async || workload.finished().await > before).await;
    let took = back_at.elapsed();
    eprintln!("the first results came {took:?} after the store was back");
    assert!(took < Duration::from_secs(5), "{took:?}");
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_store_slower_than_its_time_out_is_waited_for() {
    let mut workload = Workload::relayed().await;
    let hurried = ("FOREBAY_STORE__TIMEOUT_MS", "300");
    let mut worker = workload.stack.worker(&[SMALL_BATCHES, hurried]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    workload.stack.relays().store.set(Mode::Delay(Duration::from_millis(500)));
    says(&worker, 503).await;
    workload.stack.relays().store.heal();
    says(&worker, 200).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_store_without_memory_holds_work_up_and_loses_none() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    workload.stack.store.configure("maxmemory", "1").await;
    let refused = async || worker.log().contains("OOM");
    until_true("writes are refused", SOON, refused).await;
    let done = workload.finished().await;
    let queue = workload.stack.batch_queue();
    assert!(done < 1_500);
    // The broker's own count lags; a job that was acknowledged without a record would stay missing.
    let none_lost = async || workload.stack.vhost.depth(&queue) as usize + done >= 1_500;
    until_true("what has no record is still in the queue", SOON, none_lost).await;
    workload.stack.store.configure("maxmemory", "0").await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_store_that_is_demoted_to_a_replica_is_waited_for() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    // Of a primary that is not there: it keeps what it holds, and refuses to write.
    workload.stack.store.follow(free_port()).await;
    let refused = async || worker.log().contains("ReadOnly");
    until_true("writes are refused", SOON, refused).await;
    workload.stack.store.lead().await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_failover_to_the_replica_loses_nothing_that_was_replicated() {
    let mut workload = Workload::relayed().await;
    let mut replica = Store::start().await;
    replica.follow(workload.stack.store.port()).await;
    let sentinel = Sentinel::watch(&workload.stack.store, workload.stack.store.folder()).await;
    let mut worker = workload.stack.worker(&[]).await;
    workload.publish(200).await;
    workload.all_succeed().await;
    until_true("the replica has it all", PATIENT, async || {
        let ids: Vec<&str> = workload.jobs.iter().map(Job::id).collect();
        finished(&mut replica.connect().await, &ids).await == ids.len()
    })
    .await;

    workload.stack.store.kill();
    workload.publish(200).await;
    let promoted = async || {
        let port = sentinel.primary_port().await?;
        (port == replica.port()).then_some(port)
    };
    let port = until("the replica is the primary", PATIENT, promoted).await;
    // As a virtual address would.
    workload.stack.relays().store.point_at(port);
    workload.redis = replica.connect().await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
    replica.kill();
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_used_like_a_new_one() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    workload.publish(100).await;
    workload.all_succeed().await;
    workload.stack.store.restart_empty().await;
    workload.redis = workload.stack.redis().await;
    assert_eq!(workload.finished().await, 0);
    workload.jobs.clear();
    workload.publish(100).await;
    workload.comes_to_rest().await;
    until_true("the worker is registered again", SOON, async || {
        let listed = workload.stack.forebay(&["workers", "--json"]).await;
        listed.code == 0 && listed.output.contains("tiny")
    })
    .await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_result_that_expires_before_it_is_read_is_gone_and_said_to_be() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let job = workload.job("soon forgotten").with("result_ttl_s", 1);
    workload.submit(&job).await;
    let written = async || find(&mut workload.redis, job.id()).await.is_some();
    until_true("it is written", SOON, written).await;
    let gone = async || find(&mut workload.redis, job.id()).await.is_none();
    until_true("it expires", SOON, gone).await;
    workload.queues_are_empty().await;
    let said = workload.stack.forebay(&["get", job.id()]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.errors.contains("the result has expired"), "{said:?}");
    let said = workload.stack.forebay(&["wait", job.id(), "--timeout", "1s"]).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!said.errors.contains(&result_key("")), "keys are nothing to bother people with");
    workload.does_new_work(SOON).await;
}
