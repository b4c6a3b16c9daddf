//! Jobs that are far too much, and clocks that are wrong.

use forebay_tests::job::{Codec, now_ms};
use forebay_tests::record::result;

use forebay_tests::workload::Workload;

#[tokio::test]
async fn a_hundred_thousand_tiny_inputs_are_refused() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    workload.publish(50).await;
    for codec in Codec::BOTH {
        let job = workload.job("").with("input", vec!["x"; 100_000]);
        workload.publisher.submit(workload.stack.model(), &job, codec).await;
        let record = result(&mut workload.redis, job.id()).await;
        assert_eq!((record.state(), record.error_code()), ("failed", "invalid_request"));
        assert!(record.error_message().contains("2048"), "{}", record.fields);
    }
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn one_enormous_input_is_cut_and_delays_no_other_job() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    let text = "the forebay holds the water ".repeat(250_000);
    let cut = workload.job(&text);
    let whole = workload.job(&text).with("params", refuses_cutting());
    workload.submit(&cut).await;
    workload.submit(&whole).await;
    workload.publish(50).await;
    let record = result(&mut workload.redis, cut.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/usage/truncated"), 1);
    let record = result(&mut workload.redis, whole.id()).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "input_too_long"));
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

fn refuses_cutting() -> serde_json::Value {
    serde_json::json!({"truncate": false})
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_changes_no_result() {
    const HOUR_MS: u64 = 3_600_000;
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    let slow = now_ms() - HOUR_MS;
    let fast = now_ms() + HOUR_MS;
    for submitted_at_ms in [slow, fast, 0] {
        let job = workload.job("text").with("submitted_at_ms", submitted_at_ms);
        workload.submit(&job).await;
        let record = result(&mut workload.redis, job.id()).await;
        assert_eq!(record.state(), "succeeded", "{submitted_at_ms}: {}", record.fields);
    }
    let never = workload.job("text").with("submitted_at_ms", now_ms() + 25 * HOUR_MS);
    workload.submit(&never).await;
    let record = result(&mut workload.redis, never.id()).await;
    assert!(
        record.error_message().contains("hours ahead of this worker's clock"),
        "{}",
        record.fields
    );
    // A job from the future waited no time at all, and has all of its time left.
    let ahead = workload.job("text").with("submitted_at_ms", fast).with("expires_in_ms", 1_000);
    workload.submit(&ahead).await;
    let record = result(&mut workload.redis, ahead.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/timing/queued_ms"), 0);
    // One from the past is late by what its publisher said.
    let behind = workload.job("text").with("submitted_at_ms", slow).with("expires_in_ms", 1_000);
    workload.submit(&behind).await;
    assert_eq!(result(&mut workload.redis, behind.id()).await.state(), "expired");
    let endless =
        workload.job("text").with("submitted_at_ms", slow).with("expires_in_ms", u64::MAX);
    workload.submit(&endless).await;
    assert_eq!(result(&mut workload.redis, endless.id()).await.state(), "succeeded");
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}
