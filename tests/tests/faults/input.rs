//! Jobs that are far too much, and clocks that are wrong.

use forebay_tests::job::{Codec, now_ms};
use forebay_tests::record::result;

use forebay_tests::fleet::Fleet;

#[tokio::test]
async fn a_hundred_thousand_tiny_inputs_are_refused() {
    let mut fleet = Fleet::new().await;
    let mut worker = fleet.stack.worker(&[]).await;
    fleet.publish(50).await;
    for codec in Codec::BOTH {
        let job = fleet.job("").with("input", vec!["x"; 100_000]);
        fleet.publisher.submit(fleet.stack.model(), &job, codec).await;
        let record = result(&mut fleet.redis, job.id()).await;
        assert_eq!((record.state(), record.error_code()), ("failed", "invalid_request"));
        assert!(record.error_message().contains("2048"), "{}", record.fields);
    }
    fleet.comes_to_rest().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn one_enormous_input_is_cut_and_holds_nobody_up() {
    let mut fleet = Fleet::new().await;
    let mut worker = fleet.stack.worker(&[]).await;
    let text = "the forebay holds the water ".repeat(250_000);
    let (cut, whole) = (fleet.job(&text), fleet.job(&text).with("params", refuses_cutting()));
    fleet.submit(&cut).await;
    fleet.submit(&whole).await;
    fleet.publish(50).await;
    let record = result(&mut fleet.redis, cut.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/usage/truncated"), 1);
    let record = result(&mut fleet.redis, whole.id()).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "input_too_long"));
    fleet.comes_to_rest().await;
    assert!(worker.is_running());
}

fn refuses_cutting() -> serde_json::Value {
    serde_json::json!({"truncate": false})
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_changes_no_result() {
    const HOUR_MS: u64 = 3_600_000;
    let mut fleet = Fleet::new().await;
    let mut worker = fleet.stack.worker(&[]).await;
    let (slow, fast) = (now_ms() - HOUR_MS, now_ms() + HOUR_MS);
    for submitted_at_ms in [slow, fast, 0, u64::MAX] {
        let job = fleet.job("text").with("submitted_at_ms", submitted_at_ms);
        fleet.submit(&job).await;
        let record = result(&mut fleet.redis, job.id()).await;
        assert_eq!(record.state(), "succeeded", "{submitted_at_ms}: {}", record.fields);
    }
    // A job from the future waited no time at all, and has all of its time left.
    let ahead = fleet.job("text").with("submitted_at_ms", fast).with("expires_in_ms", 1_000);
    fleet.submit(&ahead).await;
    let record = result(&mut fleet.redis, ahead.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/timing/queued_ms"), 0);
    // One from the past is late by what its publisher said.
    let behind = fleet.job("text").with("submitted_at_ms", slow).with("expires_in_ms", 1_000);
    fleet.submit(&behind).await;
    assert_eq!(result(&mut fleet.redis, behind.id()).await.state(), "expired");
    let endless = fleet.job("text").with("submitted_at_ms", slow).with("expires_in_ms", u64::MAX);
    fleet.submit(&endless).await;
    assert_eq!(result(&mut fleet.redis, endless.id()).await.state(), "succeeded");
    fleet.comes_to_rest().await;
    assert!(worker.is_running());
}
