//! The faults that an autoscaler must survive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use forebay_tests::binaries::binary;
use forebay_tests::patience::{PATIENT, SOON, at, until, until_true};
use forebay_tests::pools::{metric, pool, signal, status, until_running};
use forebay_tests::relay::{Mode, Relay};
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;

use super::size::SERVERLESS;

fn says(value: &serde_json::Value, text: &str) -> bool {
    value["problems"].to_string().contains(text)
}

#[tokio::test]
async fn without_the_management_api_a_pool_may_grow_and_does_not_shrink() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let port = workload.stack.vhost.management_url().rsplit_once(':').unwrap().1.parse().unwrap();
    let relay = Relay::to(port);
    relay.set(Mode::Cut);
    let url = format!("http://guest:guest@127.0.0.1:{}", relay.port());
    let autoscaler = workload.stack.autoscaler(&[("FOREBAY_MANAGEMENT_URL", &url)]).await;
    workload.publish_slow(20, 20).await;
    workload.all_succeed().await;
    until_true("the problem is reported", SOON, async || {
        status(&autoscaler).is_some_and(|status| says(&status, "management API"))
    })
    .await;
    // Three times as long as an idle worker stays.
    at(Instant::now() + Duration::from_secs(3)).await;
    assert!(!workload.stack.pools().running().is_empty(), "shrank by half of what there is to see");
    relay.heal();
    until_running(workload.stack.pools(), 0, PATIENT).await;
}

#[tokio::test]
async fn without_redis_or_a_broker_a_pool_keeps_its_size() {
    let workload = Workload::on(Stack::start().await.relayed().pooled("min = 2\nmax = 2")).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    let workers = workload.stack.pools().running();
    // Serverless and with nothing to do it would go to zero at once, if it could see.
    workload.stack.relays().store.set(Mode::Cut);
    workload.stack.relays().broker.set(Mode::Cut);
    workload.stack.set_pool(SERVERLESS);
    until_true("neither is ready", SOON, async || autoscaler.readiness() == Some(503)).await;
    at(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(workload.stack.pools().running(), workers);
    workload.stack.relays().store.heal();
    workload.stack.relays().broker.heal();
    until_running(workload.stack.pools(), 0, PATIENT).await;
}

#[tokio::test]
async fn an_outage_of_redis_ends_no_worker_however_long_it_had_run() {
    let workload = Workload::on(Stack::start().await.relayed().pooled("min = 2\nmax = 2")).await;
    // A worker that is not heard of for this long after its launch has failed to start.
    let autoscaler = workload.stack.autoscaler(&[("FOREBAY_AUTOSCALER__START_S_MAX", "5")]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    until_true("both are ready", PATIENT, async || {
        pool(&autoscaler).is_some_and(|pool| pool["ready"] == 2)
    })
    .await;
    let workers = workload.stack.pools().running();
    workload.stack.relays().store.set(Mode::Cut);
    // Longer than a start may take, and than the records and the lease live.
    at(Instant::now() + Duration::from_secs(13)).await;
    workload.stack.relays().store.heal();
    until_true("both are ready again", PATIENT, async || {
        pool(&autoscaler).is_some_and(|pool| pool["ready"] == 2)
    })
    .await;
    assert_eq!(workload.stack.pools().running(), workers);
    assert_eq!(metric(&autoscaler, "forebay_workers_replaced_total", ""), 0);
}

#[tokio::test]
async fn workers_that_die_at_start_are_tried_less_and_less_until_they_live() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let program = workload.stack.store.folder().join("worker");
    let write = |script: &str| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("echo 'there is no such device' >&2; exit 2");
    let path = program.display().to_string();
    let autoscaler =
        workload.stack.autoscaler(&[("FOREBAY_AUTOSCALER__PROCESS__PROGRAM", &path)]).await;
    workload.publish(10).await;
    let reported = until("the circuit opens", PATIENT, async || {
        pool(&autoscaler).filter(|pool| says(pool, "3 times"))
    })
    .await;
    assert!(says(&reported, "exit code 2: there is no such device"), "{reported:#}");
    assert_eq!(metric(&autoscaler, "forebay_launcher_circuit_open", "tiny"), 1);
    // Pauses of a second, two, four: by now there were three tries.
    assert!(metric(&autoscaler, "forebay_workers_launched_total", "tiny") <= 4);
    write(&format!("exec {} \"$@\"", binary("forebay-worker").display()));
    workload.all_succeed().await;
    until_true("the circuit closes", SOON, async || {
        metric(&autoscaler, "forebay_launcher_circuit_open", "tiny") == 0
    })
    .await;
}

#[tokio::test]
async fn a_missing_program_is_reported_by_its_path_and_hurts_nothing() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let nowhere = [("FOREBAY_AUTOSCALER__PROCESS__PROGRAM", "/nowhere/forebay-worker")];
    let broken = workload.stack.autoscaler(&nowhere).await;
    workload.publish(10).await;
    until_true("the problem is reported", SOON, async || {
        pool(&broken).is_some_and(|pool| says(&pool, "/nowhere/forebay-worker"))
    })
    .await;
    assert!(metric(&broken, "forebay_launch_failures_total", "process") >= 1);
    drop(broken);
    let _whole = workload.stack.autoscaler(&[]).await;
    workload.all_succeed().await;
}

#[tokio::test]
async fn a_worker_that_stands_still_is_replaced() {
    let mut workload = Workload::on(Stack::start().await.pooled("min = 1\nmax = 1")).await;
    let stuck = [("FOREBAY_AUTOSCALER__STUCK_S", "4")];
    let autoscaler = workload.stack.autoscaler(&stuck).await;
    until_running(workload.stack.pools(), 1, PATIENT).await;
    // Its heartbeats go on, and its batch never ends.
    let hang = workload.job("never").faulty("hang");
    workload.submit(&hang).await;
    until_true("it is ended", PATIENT, async || {
        metric(&autoscaler, "forebay_workers_replaced_total", "stuck") >= 1
    })
    .await;
    until_running(workload.stack.pools(), 1, PATIENT).await;
    // One that is stopped is silent, and replaced as well.
    workload.stack.vhost.delete_queue(&workload.stack.batch_queue());
    // The one that took the hanging job before its queue was gone is ended too: what counts runs now.
    let pid = until("one runs and has sent a heartbeat", PATIENT, async || {
        let is_ready = pool(&autoscaler).is_some_and(|pool| pool["ready"] == 1);
        let running = workload.stack.pools().running();
        running.first().filter(|_| is_ready).map(|(_, pid)| *pid)
    })
    .await;
    signal(pid, "STOP");
    until_true("another runs", PATIENT, async || {
        let running = workload.stack.pools().running();
        running.len() == 1 && running[0].1 != pid
    })
    .await;
    let _ = &mut workload;
}

#[tokio::test]
async fn a_flapping_queue_makes_few_changes() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    // Twenty bursts, one a second, each half a second of work for one worker.
    let begun = Instant::now();
    for n in 0..20 {
        at(begun + Duration::from_secs(n)).await;
        workload.publish_slow(25, 20).await;
    }
    workload.all_succeed().await;
    let actions = metric(&autoscaler, "forebay_scale_actions_total", "tiny");
    assert!((1..=8).contains(&actions), "{actions} changes for 20 bursts");
}
