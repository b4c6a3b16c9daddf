//! `GET /v1/jobs/{id}/events`: a job's states as they come, as its clients read them.

use std::time::{Duration, Instant};

use forebay_tests::gateway::{Gateway, events, until_closed, until_read};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, at, until_true};
use forebay_tests::stack::{GRACE, Stack};
use forebay_tests::workload::Workload;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::commands::json_lines;

/// A connection that asks for the events of a job and ends with them.
async fn following(gateway: &Gateway, id: &str, key: &str) -> TcpStream {
    let request = format!(
        "GET /v1/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\nauthorization: {key}\r\nconnection: close\r\n\r\n"
    );
    gateway.sending(request.as_bytes()).await
}

fn submitted(gateway: &Gateway, text: &str) -> String {
    let body = json!({"model": TINY, "task": "embed", "input": text});
    let answer = gateway.post("/v1/jobs", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_followed_from_pending_to_its_record_on_any_replica_and_the_body_ends() {
    let workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let other = Gateway::of(&workload.stack, &[]).await;
    let id = submitted(&gateway, "a\nb");
    let mut streams = [following(&gateway, &id, "-").await, following(&other, &id, "-").await];
    for stream in &mut streams {
        let head = until_read(stream, "\n\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
        let head =
            if events(&head).is_empty() { until_read(stream, "pending").await } else { head };
        assert_eq!(events(&head), [json!({"id": id, "state": "pending"})], "{head}");
    }
    let _worker = workload.stack.worker(&[]).await;
    let record = gateway.get(&format!("/v1/jobs/{id}?wait=30")).body;
    assert_eq!(record["state"], "succeeded", "{record}");
    for stream in &mut streams {
        let rest = until_closed(stream, SOON).await;
        assert_eq!(events(&rest), [record.clone(), json!("[DONE]")], "{rest}");
        assert!(rest.contains("\n\ndata: [DONE]\n\n") && !rest.contains("data: \r"), "{rest:?}");
    }
    // One that comes after the end reads it at once.
    let mut late = following(&other, &id, "-").await;
    let all = until_closed(&mut late, SOON).await;
    assert_eq!(events(&all), [record, json!("[DONE]")], "{all}");
}

#[tokio::test]
async fn the_events_of_another_tenants_job_are_not_found() {
    let stack = Stack::start().await.tiny();
    let mut keys = Vec::new();
    for tenant in ["acme", "other"] {
        assert_eq!(stack.forebay(&["tenants", "create", tenant]).await.code, 0);
        let create = ["keys", "create", "--tenant", tenant, "--json"];
        let created = json_lines(&stack.forebay(&create).await);
        keys.push(format!("Bearer {}", created[0]["key"].as_str().unwrap()));
    }
    let gateway = Gateway::of(&stack, &[]).await;
    let body = json!({"model": TINY, "task": "embed", "input": "x"});
    let answer = gateway.post_with("/v1/jobs", &body, &[("authorization", &keys[0])]);
    let id = answer.body["id"].as_str().unwrap();
    let path = format!("/v1/jobs/{id}/events");
    let foreign = gateway.get_with(&path, &[("authorization", &keys[1])]);
    assert_eq!(foreign.mistake(), (404, "job_not_found", Some("id")), "{foreign:?}");
    assert_eq!(gateway.get(&path).mistake(), (401, "missing_api_key", None));
    let mut own = following(&gateway, id, &keys[0]).await;
    until_read(&mut own, "pending").await;
}

#[tokio::test]
async fn streams_are_bounded_in_number_and_a_client_that_leaves_makes_room() {
    let workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[("FOREBAY_GATEWAY__STREAMS_MAX", "1")]).await;
    let id = submitted(&gateway, "x");
    let mut first = following(&gateway, &id, "-").await;
    until_read(&mut first, "pending").await;
    let refused = gateway.get(&format!("/v1/jobs/{id}/events"));
    assert_eq!(refused.mistake(), (503, "overloaded", None), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    drop(first);
    until_true("there is room for another", SOON, async || {
        let mut stream = following(&gateway, &id, "-").await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.is_ok() && head == *b"HTTP/1.1 200"
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_in_time_though_its_job_does_not() {
    let workload = Workload::new().await;
    let overrides = [("FOREBAY_GATEWAY__STREAM_WAIT_MS_MAX", "300")];
    let gateway = Gateway::of(&workload.stack, &overrides).await;
    let id = submitted(&gateway, "x");
    let mut stream = following(&gateway, &id, "-").await;
    let all = until_closed(&mut stream, SOON).await;
    assert_eq!(events(&all), [json!({"id": id, "state": "pending"}), json!("[DONE]")], "{all}");
}

#[tokio::test]
async fn streams_end_when_the_gateway_is_asked_to_stop() {
    let workload = Workload::new().await;
    let mut gateway = Gateway::of(&workload.stack, &[]).await;
    let id = submitted(&gateway, "x");
    let mut stream = following(&gateway, &id, "-").await;
    until_read(&mut stream, "pending").await;
    gateway.service.signal("TERM");
    let rest = until_closed(&mut stream, SOON).await;
    assert_eq!(events(&rest), [json!("[DONE]")], "{rest}");
    assert_eq!(gateway.service.exit_code(GRACE).await, 0);
}

#[tokio::test]
async fn a_stream_without_news_outlives_the_limit_of_idle_connections() {
    let workload = Workload::new().await;
    let overrides =
        [("FOREBAY_GATEWAY__IDLE_WAIT_MS_MAX", "1000"), ("FOREBAY_GATEWAY__CONNECTIONS_MAX", "1")];
    let gateway = Gateway::of(&workload.stack, &overrides).await;
    let id = submitted(&gateway, "x");
    let mut stream = following(&gateway, &id, "-").await;
    until_read(&mut stream, "pending").await;
    // One more connection waits for room, and the limit of idle ones passes several times.
    let waiting = gateway.sending(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    at(Instant::now() + Duration::from_secs(4)).await;
    let _worker = workload.stack.worker(&[]).await;
    let silence = tokio::time::timeout(Duration::from_secs(4), until_read(&mut stream, "[DONE]"));
    let rest = silence.await.expect("the record");
    assert!(rest.contains("succeeded"), "{rest}");
    drop(waiting);
}
