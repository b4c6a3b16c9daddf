//! Faults of the observation: no worker is ended for what can't be seen, and no pool shrinks by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use forebay_tests::binaries::binary;
use forebay_tests::broker::Cluster;
use forebay_tests::patience::{PATIENT, SOON, at, until, until_true};
use forebay_tests::pools::{metric, pool, status, until_running};
use forebay_tests::relay::Mode;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;

/// How long a record outlives its last heartbeat, how long its worker may be silent then, and a little more.
const SILENT: Duration = Duration::from_secs(10 + 30 + 4);

async fn both_are_ready(autoscaler: &Service) {
    until_true("both are ready", PATIENT, async || {
        pool(autoscaler).is_some_and(|pool| pool["ready"] == 2)
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_full_ends_no_worker_however_long() {
    let mut workload = Workload::on(Stack::start().await.pooled("min = 2\nmax = 2")).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    both_are_ready(&autoscaler).await;
    let workers = workload.stack.pools().running();
    // It answers reads and refuses heartbeats, so the records of workers that are well expire.
    workload.stack.store.configure("maxmemory", "1").await;
    until_true("the problem is reported", SOON, async || {
        status(&autoscaler)
            .is_some_and(|status| status["problems"].to_string().contains("takes no heartbeats"))
    })
    .await;
    at(Instant::now() + SILENT).await;
    assert_eq!(workload.stack.pools().running(), workers);
    workload.stack.store.configure("maxmemory", "0").await;
    both_are_ready(&autoscaler).await;
    workload.does_new_work(PATIENT).await;
    assert_eq!(workload.stack.pools().running(), workers);
    assert_eq!(metric(&autoscaler, "forebay_workers_replaced_total", ""), 0);
}

#[tokio::test]
async fn workers_that_are_cut_off_from_the_store_and_answer_are_left_alone() {
    let workload = Workload::on(Stack::start().await.relayed().pooled("min = 2\nmax = 2")).await;
    // The workers reach the store through the relay, and the autoscaler past it.
    let past = workload.stack.store.url();
    let through = workload.stack.redis_url();
    let program = workload.stack.store.folder().join("worker").display().to_string();
    let worker = binary("forebay-worker");
    let script =
        format!("#!/bin/sh\nFOREBAY_REDIS_URL={through} exec {} \"$@\"\n", worker.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let autoscaler = workload
        .stack
        .autoscaler(&[
            ("FOREBAY_REDIS_URL", &past),
            ("FOREBAY_AUTOSCALER__PROCESS__PROGRAM", &program),
        ])
        .await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    both_are_ready(&autoscaler).await;
    let workers = workload.stack.pools().running();
    workload.stack.relays().store.set(Mode::Cut);
    at(Instant::now() + SILENT).await;
    assert_eq!(workload.stack.pools().running(), workers, "they answer when they are asked");
    assert_eq!(metric(&autoscaler, "forebay_workers_replaced_total", ""), 0);
}

#[tokio::test]
async fn a_queue_whose_leader_stands_still_is_not_taken_for_an_empty_one() {
    let mut cluster = Cluster::boot().await;
    let stack = Stack::on(cluster.vhost()).await.relayed().pooled("min = 1\nmax = 1");
    // Declared through the second node, which leads the queues then; looked at through the first.
    stack.relays().broker.point_at(cluster.nodes[1].amqp_port());
    let mut workload = Workload::on(stack).await;
    workload.stack.relays().broker.point_at(cluster.nodes[0].amqp_port());
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 1, PATIENT).await;
    until_true("it is observed", PATIENT, async || {
        pool(&autoscaler).is_some_and(|pool| pool["ready"] == 1 && pool["jobs_ready"] == 0)
    })
    .await;
    let workers = workload.stack.pools().running();
    cluster.nodes[1].freeze();
    // With nothing to do it would go to zero at once, if that were known.
    workload.stack.set_pool("min = 0\nmax = 1\nidle_s = 0.5");
    let seen = until("what is unknown is reported", SOON, async || {
        pool(&autoscaler).filter(|pool| pool["problems"].to_string().contains("does not prove it"))
    })
    .await;
    assert!(seen["jobs_ready"].is_null(), "unknown is not zero: {seen:#}");
    at(Instant::now() + Duration::from_secs(6)).await;
    assert_eq!(workload.stack.pools().running(), workers);
    cluster.nodes[1].thaw();
    until_running(workload.stack.pools(), 0, PATIENT).await;
    workload.does_new_work(PATIENT).await;
}
