//! The size of a pool follows its work and its configuration.

use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::pools::{metric, pool, status, until_running};
use forebay_tests::record::result_within;
use forebay_tests::stack::{GRACE, Stack};
use forebay_tests::workload::Workload;

/// Nothing at rest, three at most.
pub const SERVERLESS: &str = "min = 0\nmax = 3\ntarget_wait_s = 1.0\nidle_s = 1.0\n\
     jobs_per_s_prior = 50.0\ncold_start_s_prior = 1.0";

#[tokio::test]
async fn a_pool_wakes_from_zero_grows_to_its_load_and_goes_back_to_zero() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_true("it leads", SOON, async || {
        status(&autoscaler).is_some_and(|status| status["leads"] == true)
    })
    .await;
    assert!(workload.stack.pools().running().is_empty(), "no work, no worker");
    // Eight seconds of work for one worker.
    workload.publish_slow(400, 20).await;
    until_running(workload.stack.pools(), 3, PATIENT).await;
    workload.all_succeed().await;
    until_running(workload.stack.pools(), 0, PATIENT).await;
    let seen = until("zero is reported", SOON, async || {
        pool(&autoscaler).filter(|pool| pool["wanted"] == 0 && pool["draining"] == 0)
    })
    .await;
    let decisions = seen["decisions"].as_array().unwrap();
    assert!(decisions.len() >= 2, "{seen:#}");
    for decision in decisions {
        let why = decision["why"].as_str().unwrap();
        assert!(why.len() > 10 && why.contains(char::is_numeric), "a reason with numbers: {why}");
    }
    assert!(metric(&autoscaler, "forebay_workers_launched_total", "tiny") >= 3);
    assert_eq!(metric(&autoscaler, "forebay_workers_replaced_total", ""), 0);
    // And once more: nothing is left in the way.
    workload.does_new_work(PATIENT).await;
}

#[tokio::test]
async fn a_dedicated_pool_keeps_its_size_and_its_configuration_changes_without_a_restart() {
    let dedicated = "min = 2\nmax = 2";
    let mut workload = Workload::on(Stack::start().await.pooled(dedicated)).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    workload.publish(50).await;
    workload.all_succeed().await;
    let first = workload.stack.pools().running();

    // A broken file is refused and changes nothing.
    workload.stack.write_config("[models.tiny\n");
    until_true("the problem is reported", SOON, async || {
        status(&autoscaler).is_some_and(|status| status["problems"].to_string().contains("refused"))
    })
    .await;
    assert_eq!(workload.stack.pools().running(), first);

    workload.stack.set_pool(SERVERLESS);
    until_running(workload.stack.pools(), 0, PATIENT).await;
    let reported = status(&autoscaler).unwrap();
    assert!(!reported["problems"].to_string().contains("refused"), "{reported:#}");
    workload.does_new_work(PATIENT).await;
    assert_eq!(metric(&autoscaler, "forebay_config_reloads_total", "applied"), 1);
    assert_eq!(metric(&autoscaler, "forebay_config_reloads_total", "refused"), 1);
}

#[tokio::test]
async fn a_broken_configuration_keeps_no_worker_from_starting() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    workload.stack.write_config("[models.tiny\n");
    until_true("the problem is reported", SOON, async || {
        status(&autoscaler).is_some_and(|status| status["problems"].to_string().contains("refused"))
    })
    .await;
    workload.publish(20).await;
    workload.all_succeed().await;
}

#[tokio::test]
async fn a_model_that_is_taken_out_of_the_configuration_loses_its_workers() {
    let workload = Workload::on(Stack::start().await.pooled("min = 1\nmax = 1")).await;
    let _autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 1, PATIENT).await;
    workload.stack.write_config(&workload.stack.pools().settings());
    until_running(workload.stack.pools(), 0, PATIENT).await;
}

#[tokio::test]
async fn what_waits_for_a_model_that_is_taken_out_is_answered() {
    // No worker ever takes its jobs.
    let mut workload = Workload::on(Stack::start().await.pooled("min = 0\nmax = 0")).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    workload.publish(5).await;
    until_true("they are seen", SOON, async || {
        pool(&autoscaler).is_some_and(|pool| pool["jobs_ready"] == 5)
    })
    .await;
    workload.stack.write_config(&workload.stack.pools().settings());
    until_true("it is reported", SOON, async || {
        status(&autoscaler)
            .is_some_and(|status| status["problems"].to_string().contains("no longer configured"))
    })
    .await;
    assert_eq!(workload.finished().await, 0, "the model may come back");
    for job in &workload.jobs {
        let record = result_within(&mut workload.redis, job.id(), 2 * PATIENT).await;
        assert_eq!(record.state(), "failed");
        assert_eq!(record.fields["error"]["code"], "model_not_found", "{}", record.fields);
    }
    // What comes later is answered too, until the model is back.
    let later = workload.job("later");
    workload.submit(&later).await;
    let record = result_within(&mut workload.redis, later.id(), SOON).await;
    assert_eq!(record.fields["error"]["code"], "model_not_found", "{}", record.fields);
    workload.stack.set_pool(SERVERLESS);
    until_true("it is back", SOON, async || pool(&autoscaler).is_some()).await;
    workload.does_new_work(PATIENT).await;
}

#[tokio::test]
async fn ten_thousand_jobs_at_zero_launch_no_more_than_the_most() {
    let mut workload = Workload::on(Stack::start().await.pooled(SERVERLESS)).await;
    workload.publish(10_000).await;
    let autoscaler = workload.stack.autoscaler(&[]).await;
    workload.all_succeed().await;
    assert!(metric(&autoscaler, "forebay_workers_launched_total", "tiny") <= 3);
    until_running(workload.stack.pools(), 0, PATIENT).await;
}

#[tokio::test]
async fn an_autoscaler_that_is_asked_to_stop_takes_its_processes_along() {
    let mut workload = Workload::on(Stack::start().await.pooled("min = 2\nmax = 2")).await;
    let mut autoscaler = workload.stack.autoscaler(&[]).await;
    until_running(workload.stack.pools(), 2, PATIENT).await;
    workload.publish_slow(50, 20).await;
    autoscaler.signal("TERM");
    assert_eq!(autoscaler.exit_code(GRACE).await, 0);
    assert!(workload.stack.pools().running().is_empty());
    // What they held they have finished; the rest waits.
    let stack = &workload.stack;
    let _again = stack.autoscaler(&[]).await;
    workload.all_succeed().await;
}
