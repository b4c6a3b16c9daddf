//! Workers that are killed, stopped or stuck, and jobs that do that to them.

use std::time::Duration;

use forebay_tests::job::Job;
use forebay_tests::patience::{PATIENT, SOON, holds_within, until_true};
use forebay_tests::record::{Record, find, result, result_within};
use forebay_tests::relay::Mode;
use forebay_tests::service::Service;
use forebay_tests::stack::GRACE;

use forebay_tests::workload::{SMALL_BATCHES, Workload, says};

const KILLED: i32 = 128 + 9;
const ABORTED: i32 = 128 + 6;
/// Few, since each death is seen when the dead worker's record has expired: no autoscaler runs here.
const ATTEMPTS: (&str, &str) = ("FOREBAY_WORKER__ATTEMPTS_MAX", "3");

/// A worker armed with a fail point dies there among its jobs; another one does all of them.
async fn is_survived(point: &str, turn: u32) {
    let mut workload = Workload::new().await;
    workload.publish(200).await;
    let armed = format!("{point}=kill:{turn}");
    let mut first =
        workload.stack.starting_worker(&[SMALL_BATCHES, ("FOREBAY_FAIL_POINTS", &armed)]);
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "at {point}");
    assert!(first.log().contains(point), "{}", first.log());
    let _second = workload.stack.worker(&[]).await;
    workload.comes_to_rest().await;
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
    let mut workload = Workload::new().await;
    let armed = [SMALL_BATCHES, ("FOREBAY_FAIL_POINTS", "during_drain=kill")];
    let mut first = workload.stack.worker(&armed).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    first.signal("TERM");
    assert_eq!(first.exit_code(GRACE).await, KILLED);
    let _second = workload.stack.worker(&[]).await;
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_worker_asked_to_stop_before_it_is_ready_stops() {
    let workload = Workload::relayed().await;
    workload.stack.relays().broker.set(Mode::Stall);
    let mut worker = workload.stack.starting_worker(&[]);
    says(&worker, 503).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
}

/// A worker that is asked to stop while a server is away gives up after its grace period, in order, and
/// another one does its jobs.
async fn stops_in_time(mut workload: Workload, disturb: impl FnOnce(&Workload)) {
    let mut worker =
        workload.stack.worker(&[SMALL_BATCHES, ("FOREBAY_WORKER__GRACE_S", "2")]).await;
    workload.publish(1_500).await;
    workload.is_at_work().await;
    disturb(&workload);
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
    workload.stack.relays().broker.heal();
    workload.stack.relays().store.heal();
    let _second = workload.stack.worker(&[]).await;
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_worker_asked_to_stop_while_the_store_is_silent_stops_in_time() {
    stops_in_time(Workload::relayed().await, |workload| {
        workload.stack.relays().store.set(Mode::Stall);
    })
    .await;
}

#[tokio::test]
async fn a_worker_asked_to_stop_while_the_broker_is_silent_stops_in_time() {
    stops_in_time(Workload::relayed().await, |workload| {
        workload.stack.relays().broker.set(Mode::Stall);
    })
    .await;
}

#[tokio::test]
async fn a_worker_asked_to_stop_while_both_servers_are_gone_stops_in_time() {
    stops_in_time(Workload::relayed().await, |workload| {
        workload.stack.relays().broker.set(Mode::Cut);
        workload.stack.relays().store.set(Mode::Cut);
    })
    .await;
}

#[tokio::test]
async fn a_worker_asked_to_stop_while_it_computes_for_ever_stops_in_time() {
    let workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[("FOREBAY_WORKER__GRACE_S", "2")]).await;
    let job = workload.job("hangs").faulty("hang");
    workload.submit(&job).await;
    let taken = async || workload.stack.vhost.queue(&workload.stack.batch_queue()).unwrap();
    until_true("it has the job", SOON, async || taken().await["messages_unacknowledged"] == 1)
        .await;
    worker.signal("TERM");
    let code = worker.exit_code(SOON).await;
    assert_eq!(code, 0, "{}", worker.log());
}

#[tokio::test]
async fn jobs_too_many_for_the_memory_together_are_done_in_parts() {
    let mut workload = Workload::new().await;
    let small: Vec<Job> =
        (0..16).map(|n| workload.job(&format!("{n} is short")).faulty("out_of_memory")).collect();
    for job in &small {
        workload.submit(job).await;
    }
    workload.publish(50).await;
    let _worker = workload.stack.worker(&[]).await;
    for job in &small {
        let record = result(&mut workload.redis, job.id()).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_too_large_for_the_memory_even_alone_fails_and_no_other_does() {
    let mut workload = Workload::new().await;
    let large = workload.job(&"water ".repeat(200)).faulty("out_of_memory");
    workload.submit(&large).await;
    workload.publish(50).await;
    let _worker = workload.stack.worker(&[("FOREBAY_WORKER__ATTEMPTS_MAX", "1")]).await;
    let record = result(&mut workload.redis, large.id()).await;
    assert_eq!(record.state(), "failed", "{}", record.fields);
    assert!(record.error_message().contains("memory"), "{}", record.fields);
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_whose_failures_pass_succeeds_and_says_how_often_it_was_tried() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let job = workload.job("fails twice").faulty("error:2");
    workload.submit(&job).await;
    let record = result_within(&mut workload.redis, job.id(), SOON * 2).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/attempts"), 3, "{}", record.fields);
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_that_always_fails_is_given_up_after_its_attempts() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[("FOREBAY_WORKER__ATTEMPTS_MAX", "2")]).await;
    let job = workload.job("fails").faulty("error");
    workload.submit(&job).await;
    workload.publish(50).await;
    let record = result_within(&mut workload.redis, job.id(), SOON * 2).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!(record.count("/attempts"), 2, "{}", record.fields);
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_value_that_is_no_number_fails_its_own_job_only() {
    let mut workload = Workload::new().await;
    let job = workload.job("not a number").faulty("nan");
    workload.submit(&job).await;
    workload.publish(50).await;
    let _worker = workload.stack.worker(&[]).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "numerical_error"));
    workload.comes_to_rest().await;
}

/// Keeps one worker running until the job has a record; answers it, and how often a worker died.
async fn until_settled(
    workload: &mut Workload,
    id: &str,
    settings: &[(&str, &str)],
) -> (Record, u32) {
    let mut worker: Service = workload.stack.starting_worker(settings);
    let mut deaths = 0;
    let settled = holds_within(PATIENT, async || {
        if let Some(code) = worker.ended() {
            assert_eq!(code, ABORTED, "{}", worker.log());
            deaths += 1;
            worker = workload.stack.starting_worker(settings);
        }
        find(&mut workload.redis, id).await.is_some()
    });
    assert!(settled.await, "no record after {deaths} deaths");
    workload.comes_to_rest().await;
    assert!(worker.is_running());
    (find(&mut workload.redis, id).await.unwrap(), deaths)
}

#[tokio::test]
async fn a_job_that_ends_its_worker_every_time_is_given_up_and_all_others_are_done() {
    let mut workload = Workload::new().await;
    workload.publish(100).await;
    let job = workload.job("ends its worker").faulty("abort");
    workload.submit(&job).await;
    workload.publish(100).await;
    let (record, deaths) = until_settled(&mut workload, job.id(), &[ATTEMPTS]).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!((deaths, record.count("/attempts")), (3, 3), "{}", record.fields);
}

#[tokio::test]
async fn a_job_that_hangs_ends_its_worker_and_is_given_up() {
    let mut workload = Workload::new().await;
    workload.publish(100).await;
    let job = workload.job("hangs").faulty("hang");
    workload.submit(&job).await;
    workload.publish(100).await;
    let settings = [ATTEMPTS, ("FOREBAY_WORKER__BATCH_DEADLINE_S", "1")];
    let (record, deaths) = until_settled(&mut workload, job.id(), &settings).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "attempts_exhausted"));
    assert_eq!((deaths, record.count("/attempts")), (3, 3), "{}", record.fields);
}

#[tokio::test]
async fn a_worker_whose_engine_panics_ends_with_an_error_and_loses_nothing() {
    let mut workload = Workload::new().await;
    let job = workload.job("panics").faulty("panic");
    workload.submit(&job).await;
    workload.publish(50).await;
    let settings = [("FOREBAY_WORKER__ATTEMPTS_MAX", "2")];
    let mut worker = workload.stack.starting_worker(&settings);
    let settled = holds_within(PATIENT, async || {
        if let Some(code) = worker.ended() {
            assert_ne!(code, 0, "{}", worker.log());
            worker = workload.stack.starting_worker(&settings);
        }
        find(&mut workload.redis, job.id()).await.is_some()
    });
    assert!(settled.await, "no record of the job that panics");
    let record = result_within(&mut workload.redis, job.id(), Duration::from_secs(1)).await;
    assert_eq!(record.state(), "failed", "{}", record.fields);
    workload.comes_to_rest().await;
}
