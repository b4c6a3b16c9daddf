//! Autoscalers that die, that are two, and that sleep: one fleet all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::pools::{lives, metric, pool, status, until_running};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;

const TWO: &str = "min = 2\nmax = 2";

async fn leads(autoscaler: &Service) {
    let leads = async || status(autoscaler).is_some_and(|status| status["leads"] == true);
    until_true("it leads", PATIENT, leads).await;
}

fn pids(workload: &Workload) -> BTreeSet<u32> {
    workload.stack.pools().running().into_iter().map(|(_, pid)| pid).collect()
}

#[tokio::test]
async fn a_killed_autoscaler_leaves_the_fleet_alone_and_its_successor_adopts_it() {
    let mut workload = Workload::on(Stack::start().await.pooled(TWO)).await;
    let mut first = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    workload.publish_slow(300, 20).await;
    workload.is_at_work().await;
    let workers = pids(&workload);
    first.signal("KILL");
    first.exit_code(SOON).await;
    let second = workload.stack.autoscaler(&[]).await;
    leads(&second).await;
    until_true("it reports both", SOON, async || {
        pool(&second).is_some_and(|pool| pool["ready"] == 2)
    })
    .await;
    workload.all_succeed().await;
    assert_eq!(pids(&workload), workers, "the same workers, and no others");
    assert_eq!(metric(&second, "forebay_workers_adopted_total", "tiny"), 2);
    assert_eq!(metric(&second, "forebay_workers_launched_total", "tiny"), 0);
    // It may also end them, though it did not start them.
    workload.stack.set_pool("min = 0\nmax = 2\nidle_s = 0.5");
    until_running(workload.stack.pools(), 0, PATIENT).await;
}

#[tokio::test]
async fn of_two_autoscalers_one_leads_and_the_other_takes_over() {
    let mut workload = Workload::on(Stack::start().await.pooled(TWO)).await;
    let mut first = workload.stack.autoscaler(&[]).await;
    leads(&first).await;
    let second = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    let reported = until("the other reports who leads", SOON, async || {
        status(&second).filter(|status| status["pools"][0]["ready"] == 2)
    })
    .await;
    assert_eq!(reported["leads"], false);
    workload.publish_slow(300, 20).await;
    let workers = pids(&workload);
    first.signal("KILL");
    first.exit_code(SOON).await;
    leads(&second).await;
    workload.all_succeed().await;
    assert_eq!(pids(&workload), workers);
    let token = |status: &serde_json::Value| status["token"].as_u64().unwrap();
    assert!(token(&status(&second).unwrap()) > token(&reported), "each leader has a higher token");
}

#[tokio::test]
async fn one_that_slept_past_its_lease_does_nothing_when_it_wakes() {
    let workload = Workload::on(Stack::start().await.pooled(TWO)).await;
    let first = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    leads(&first).await;
    first.signal("STOP");
    let second = workload.stack.autoscaler(&[]).await;
    leads(&second).await;
    // What the sleeper last decided would double the fleet.
    workload.stack.set_pool("min = 3\nmax = 3");
    until_running(workload.stack.pools(), 3, PATIENT).await;
    let workers = pids(&workload);
    first.signal("CONT");
    until_true("it knows that it lost leadership", SOON, async || {
        status(&first).is_some_and(|status| status["leads"] == false)
    })
    .await;
    assert_eq!(pids(&workload), workers);
    assert_eq!(metric(&first, "forebay_workers_launched_total", "tiny"), 2);
    assert_eq!(metric(&second, "forebay_workers_launched_total", "tiny"), 1);
}

#[tokio::test]
async fn the_workers_of_a_test_go_with_it() {
    let workload = Workload::on(Stack::start().await.pooled(TWO)).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    let workers = pids(&workload);
    drop(autoscaler);
    drop(workload);
    // Left to themselves they would stay for the half minute of `idle_s_max`.
    let gone = async || !workers.iter().any(|pid| lives(*pid));
    until_true("they are gone", Duration::from_secs(5), gone).await;
}
