//! Scaling in under load: nothing is lost, and nothing comes twice.

use forebay_tests::patience::{PATIENT, until_true};
use forebay_tests::pools::{metric, until_running};
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;

/// Workers that are drained in all.
const SCALE_INS: u64 = 100;

#[tokio::test]
async fn a_hundred_scale_ins_under_load_make_no_message_come_twice() {
    let mut workload = Workload::on(Stack::start().await.pooled("min = 1\nmax = 1")).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 1, PATIENT).await;
    let drained = || metric(&autoscaler, "forebay_workers_drained_total", "tiny");
    while drained() < SCALE_INS {
        workload.stack.set_pool("min = 8\nmax = 8");
        until_running(workload.stack.pools(), 8, PATIENT).await;
        workload.publish_slow(200, 10).await;
        // All of them have something in hand when seven are asked to stop.
        workload.is_at_work().await;
        workload.stack.set_pool("min = 1\nmax = 1");
        until_running(workload.stack.pools(), 1, PATIENT).await;
    }
    workload.all_succeed().await;
    workload.queues_are_empty().await;
    let queue = workload.stack.batch_queue();
    // The management plug-in counts every five seconds, and on a busy machine misses what a channel counted last.
    let published = workload.jobs.len() as u64;
    let count = |kind: &str| {
        let stats = workload.stack.vhost.queue(&queue).unwrap()["message_stats"].clone();
        stats[kind].as_u64().unwrap_or(0)
    };
    until_true("nearly all are counted", PATIENT, async || count("ack") >= published / 10 * 9)
        .await;
    let stats = workload.stack.vhost.queue(&queue).unwrap()["message_stats"].clone();
    assert_eq!(count("redeliver"), 0, "of {published} published: {stats}");
    assert!(count("deliver") <= published, "each was handed out once, of {published}: {stats}");
    assert_eq!(metric(&autoscaler, "forebay_workers_replaced_total", ""), 0);
}
