//! Autoscalers that die, that are two, and that sleep: one fleet all the same.

use std::collections::BTreeSet;

use forebay_tests::fleet::Fleet;
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::pools::{metric, pool, status, until_running};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;

const TWO: &str = "min = 2\nmax = 2";

async fn leads(autoscaler: &Service) {
    let leads = async || status(autoscaler).is_some_and(|status| status["leads"] == true);
    until_true("it leads", PATIENT, leads).await;
}

fn pids(fleet: &Fleet) -> BTreeSet<u32> {
    fleet.stack.pools().running().into_iter().map(|(_, pid)| pid).collect()
}

#[tokio::test]
async fn a_killed_autoscaler_leaves_the_fleet_alone_and_its_successor_adopts_it() {
    let mut fleet = Fleet::on(Stack::start().await.pooled(TWO)).await;
    let mut first = fleet.stack.autoscaler(&[]).await;
    until_running(&fleet.stack, 2, PATIENT).await;
    fleet.publish_slow(300, 20).await;
    fleet.is_at_work().await;
    let workers = pids(&fleet);
    first.signal("KILL");
    first.exit_code(SOON).await;
    let second = fleet.stack.autoscaler(&[]).await;
    leads(&second).await;
    until_true("it tells of both", SOON, async || {
        pool(&second).is_some_and(|pool| pool["ready"] == 2)
    })
    .await;
    fleet.all_succeed().await;
    assert_eq!(pids(&fleet), workers, "the same workers, and no others");
    assert_eq!(metric(&second, "forebay_workers_adopted_total", "tiny"), 2);
    assert_eq!(metric(&second, "forebay_workers_launched_total", "tiny"), 0);
    // It may also end them, though it did not start them.
    fleet.stack.set_pool("min = 0\nmax = 2\nidle_s = 0.5");
    until_running(&fleet.stack, 0, PATIENT).await;
}

#[tokio::test]
async fn of_two_autoscalers_one_leads_and_the_other_takes_over() {
    let mut fleet = Fleet::on(Stack::start().await.pooled(TWO)).await;
    let mut first = fleet.stack.autoscaler(&[]).await;
    leads(&first).await;
    let second = fleet.stack.autoscaler(&[]).await;
    until_running(&fleet.stack, 2, PATIENT).await;
    let told = until("the other tells who leads", SOON, async || {
        status(&second).filter(|status| status["pools"][0]["ready"] == 2)
    })
    .await;
    assert_eq!(told["leads"], false);
    fleet.publish_slow(300, 20).await;
    let workers = pids(&fleet);
    first.signal("KILL");
    first.exit_code(SOON).await;
    leads(&second).await;
    fleet.all_succeed().await;
    assert_eq!(pids(&fleet), workers);
    let token = |status: &serde_json::Value| status["token"].as_u64().unwrap();
    assert!(token(&status(&second).unwrap()) > token(&told), "each leader has a higher token");
}

#[tokio::test]
async fn one_that_slept_past_its_lease_does_nothing_when_it_wakes() {
    let fleet = Fleet::on(Stack::start().await.pooled(TWO)).await;
    let first = fleet.stack.autoscaler(&[]).await;
    until_running(&fleet.stack, 2, PATIENT).await;
    leads(&first).await;
    first.signal("STOP");
    let second = fleet.stack.autoscaler(&[]).await;
    leads(&second).await;
    // What the sleeper last decided would double the fleet.
    fleet.stack.set_pool("min = 3\nmax = 3");
    until_running(&fleet.stack, 3, PATIENT).await;
    let workers = pids(&fleet);
    first.signal("CONT");
    until_true("it knows that it leads no more", SOON, async || {
        status(&first).is_some_and(|status| status["leads"] == false)
    })
    .await;
    assert_eq!(pids(&fleet), workers);
    assert_eq!(metric(&first, "forebay_workers_launched_total", "tiny"), 2);
    assert_eq!(metric(&second, "forebay_workers_launched_total", "tiny"), 1);
}
