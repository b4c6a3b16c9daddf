//! Workers that are killed, stopped or stuck, and jobs that do that to them.

use std::time::Duration;

use forebay_tests::job::Job;
use forebay_tests::patience::{PATIENT, SOON, comes_true, until_true};
use forebay_tests::record::{Record, find, result, result_within};
use forebay_tests::relay::Mode;
use forebay_tests::service::Service;
use forebay_tests::stack::GRACE;

use forebay_tests::fleet::{Fleet, SMALL_BATCHES, says};

const KILLED: i32 = 128 + 9;
const ABORTED: i32 = 128 + 6;

/// A worker armed with a fail point dies there among its jobs; another one does all of them.
async fn is_survived(point: &str, turn: u32) {
    let mut fleet = Fleet::new().await;
    fleet.publish(200).await;
    let armed = format!("{point}=kill:{turn}");
    let mut first = fleet.stack.starting_worker(&[SMALL_BATCHES, ("FOREBAY_FAIL_POINTS", &armed)]);
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "at {point}");
    assert!(first.log().contains(point), "{}", first.log());
    let _second = fleet.stack.worker(&[]).await;
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_kill_after_delivery_loses_nothing() {
    is_survived("after_delivery", 30).await;
}

#[tokio::test]
async fn a_kill_after_compute_loses_nothing() {
    is_survived("after_compute", 3).await;
}

#[tokio::test]
async fn a_kill_after_the_result_is_written_loses_nothing() {
    is_survived("after_result_write", 3).await;
}

#[tokio::test]
async fn a_kill_before_the_acknowledgement_loses_nothing() {
    is_survived("before_ack", 20).await;
}

#[tokio::test]
async fn a_kill_while_draining_loses_nothing() {
    let mut fleet = Fleet::new().await;
    let armed = [SMALL_BATCHES, ("FOREBAY_FAIL_POINTS", "during_drain=kill")];
    let mut first = fleet.stack.worker(&armed).await;
    fleet.publish(1_500).await;
    fleet.is_at_work().await;
    first.signal("TERM");
    assert_eq!(first.exit_code(GRACE).await, KILLED);
    let _second = fleet.stack.worker(&[]).await;
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_worker_told_to_stop_before_it_is_ready_stops() {
    let fleet = Fleet::relayed().await;
    fleet.stack.relays().broker.set(Mode::Stall);
    let mut worker = fleet.stack.starting_worker(&[]);
    says(&worker, 503).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
}

/// A worker that is told to stop while a server is away gives up after its grace period, in order, and
/// another one does its jobs.
async fn stops_in_time(mut fleet: Fleet, disturb: impl FnOnce(&Fleet)) {
    let mut worker = fleet.stack.worker(&[SMALL_BATCHES, ("FOREBAY_WORKER__GRACE_S", "2")]).await;
    fleet.publish(1_500).await;
    fleet.is_at_work().await;
    disturb(&fleet);
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
    fleet.stack.relays().broker.heal();
    fleet.stack.relays().store.heal();
    let _second = fleet.stack.worker(&[]).await;
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_worker_told_to_stop_while_the_store_is_silent_stops_in_time() {
    stops_in_time(Fleet::relayed().await, |fleet| {
        fleet.stack.relays().store.set(Mode::Stall);
    })
    .await;
}

#[tokio::test]
async fn a_worker_told_to_stop_while_the_broker_is_silent_stops_in_time() {
    stops_in_time(Fleet::relayed().await, |fleet| {
        fleet.stack.relays().broker.set(Mode::Stall);
    })
    .await;
}

#[tokio::test]
async fn a_worker_told_to_stop_while_both_servers_are_gone_stops_in_time() {
    stops_in_time(Fleet::relayed().await, |fleet| {
        fleet.stack.relays().broker.set(Mode::Cut);
        fleet.stack.relays().store.set(Mode::Cut);
    })
    .await;
}

#[tokio::test]
async fn a_worker_told_to_stop_while_it_computes_for_ever_stops_in_time() {
    let fleet = Fleet::new().await;
    let mut worker = fleet.stack.worker(&[("FOREBAY_WORKER__GRACE_S", "2")]).await;
    let job = fleet.job("hangs").faulty("hang");
    fleet.submit(&job).await;
    let taken = async || fleet.stack.vhost.queue(&fleet.stack.batch_queue()).unwrap();
    until_true("it has the job", SOON, async || taken().await["messages_unacknowledged"] == 1)
        .await;
    worker.signal("TERM");
    let code = worker.exit_code(SOON).await;
    assert_eq!(code, 0, "{}", worker.log());
}

#[tokio::test]
async fn jobs_too_many_for_the_memory_together_are_done_in_parts() {
    let mut fleet = Fleet::new().await;
    let small: Vec<Job> =
        (0..16).map(|n| fleet.job(&format!("{n} is short")).faulty("out_of_memory")).collect();
    for job in &small {
        fleet.submit(job).await;
    }
    fleet.publish(50).await;
    let _worker = fleet.stack.worker(&[]).await;
    for job in &small {
        let record = result(&mut fleet.redis, job.id()).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_too_large_for_the_memory_even_alone_fails_and_no_other_does() {
    let mut fleet = Fleet::new().await;
    let large = fleet.job(&"water ".repeat(200)).faulty("out_of_memory");
    fleet.submit(&large).await;
    fleet.publish(50).await;
    let _worker = fleet.stack.worker(&[("FOREBAY_WORKER__ATTEMPTS_MAX", "1")]).await;
    let record = result(&mut fleet.redis, large.id()).await;
    assert_eq!(record.state(), "failed", "{}", record.fields);
    assert!(record.error_message().contains("memory"), "{}", record.fields);
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_whose_failures_pass_succeeds_and_says_how_often_it_was_tried() {
    let mut fleet = Fleet::new().await;
    let _worker = fleet.stack.worker(&[]).await;
    let job = fleet.job("fails twice").faulty("error:2");
    fleet.submit(&job).await;
    let record = result_within(&mut fleet.redis, job.id(), SOON * 2).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/attempts"), 3, "{}", record.fields);
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_that_always_fails_is_given_up_after_its_attempts() {
    let mut fleet = Fleet::new().await;
    let _worker = fleet.stack.worker(&[("FOREBAY_WORKER__ATTEMPTS_MAX", "2")]).await;
    let job = fleet.job("fails").faulty("error");
    fleet.submit(&job).await;
    fleet.publish(50).await;
    let record = result_within(&mut fleet.redis, job.id(), SOON * 2).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!(record.count("/attempts"), 2, "{}", record.fields);
    fleet.comes_to_rest().await;
}

#[tokio::test]
async fn a_value_that_is_no_number_fails_its_own_job_only() {
    let mut fleet = Fleet::new().await;
    let job = fleet.job("not a number").faulty("nan");
    fleet.submit(&job).await;
    fleet.publish(50).await;
    let _worker = fleet.stack.worker(&[]).await;
    let record = result(&mut fleet.redis, job.id()).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "numerical_error"));
    fleet.comes_to_rest().await;
}

/// Keeps one worker running until the job has a record; answers it, and how often a worker died.
async fn until_settled(fleet: &mut Fleet, id: &str, settings: &[(&str, &str)]) -> (Record, u32) {
    let mut worker: Service = fleet.stack.starting_worker(settings);
    let mut deaths = 0;
    let settled = comes_true(PATIENT, async || {
        if let Some(code) = worker.ended() {
            assert_eq!(code, ABORTED, "{}", worker.log());
            deaths += 1;
            worker = fleet.stack.starting_worker(settings);
        }
        find(&mut fleet.redis, id).await.is_some()
    });
    assert!(settled.await, "no record after {deaths} deaths");
    fleet.comes_to_rest().await;
    assert!(worker.is_running());
    (find(&mut fleet.redis, id).await.unwrap(), deaths)
}

#[tokio::test]
async fn a_job_that_ends_its_worker_every_time_is_given_up_and_all_others_are_done() {
    let mut fleet = Fleet::new().await;
    fleet.publish(100).await;
    let job = fleet.job("ends its worker").faulty("abort");
    fleet.submit(&job).await;
    fleet.publish(100).await;
    let (record, deaths) = until_settled(&mut fleet, job.id(), &[]).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!(deaths, 5, "{}", record.fields);
}

#[tokio::test]
async fn a_job_that_hangs_ends_its_worker_and_is_given_up() {
    let mut fleet = Fleet::new().await;
    fleet.publish(100).await;
    let job = fleet.job("hangs").faulty("hang");
    fleet.submit(&job).await;
    fleet.publish(100).await;
    let settings = [("FOREBAY_WORKER__BATCH_DEADLINE_S", "1")];
    let (record, deaths) = until_settled(&mut fleet, job.id(), &settings).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!(deaths, 5, "{}", record.fields);
}

#[tokio::test]
async fn a_worker_whose_engine_panics_ends_with_an_error_and_loses_nothing() {
    let mut fleet = Fleet::new().await;
    let job = fleet.job("panics").faulty("panic");
    fleet.submit(&job).await;
    fleet.publish(50).await;
    let settings = [("FOREBAY_WORKER__ATTEMPTS_MAX", "2")];
    let mut worker = fleet.stack.starting_worker(&settings);
    let settled = comes_true(PATIENT, async || {
        if let Some(code) = worker.ended() {
            assert_ne!(code, 0, "{}", worker.log());
            worker = fleet.stack.starting_worker(&settings);
        }
        find(&mut fleet.redis, job.id()).await.is_some()
    });
    assert!(settled.await, "no record of the job that panics");
    let record = result_within(&mut fleet.redis, job.id(), Duration::from_secs(1)).await;
    assert_eq!(record.state(), "failed", "{}", record.fields);
    fleet.comes_to_rest().await;
}
