//! The gateway's bounds: time, size, number, and what it does when it stops or the fleet is away.

use forebay_tests::gateway::{Gateway, until_closed};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::stack::{GRACE, Stack};
use forebay_tests::workload::Workload;
use redis::AsyncCommands as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const EMBEDDINGS: &str = "/v1/embeddings";
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_words_even_where_all_of_it_is_sent() {
    let stack = Stack::start().await.tiny();
    let gateway = Gateway::of(&stack, &[("FOREBAY_GATEWAY__BODY_BYTES_MAX", "1000000")]).await;
    let body = json!({"model": TINY, "input": "x".repeat(8_000_000)});
    let answer = gateway.post(EMBEDDINGS, &body);
    assert_eq!(answer.mistake(), (413, "payload_too_large", None), "{answer:?}");
    assert!(answer.message().contains("1000000"), "{answer:?}");
}

#[tokio::test]
async fn a_text_over_the_limit_of_a_job_is_named() {
    let stack = Stack::start().await.tiny();
    let overrides = [("FOREBAY_LIMITS__BODY_BYTES_MAX", "10000")];
    let gateway = Gateway::of(&stack, &overrides).await;
    let body = json!({"model": TINY, "input": ["short", "x".repeat(20_000)]});
    let answer = gateway.post(EMBEDDINGS, &body);
    assert_eq!(answer.mistake(), (413, "payload_too_large", Some("input")), "{answer:?}");
    assert!(answer.message().starts_with("`input[1]`"), "{answer:?}");
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let stack = Stack::start().await.tiny();
    let overrides = [
        ("FOREBAY_GATEWAY__BODY_BYTES_MAX", "1000000"),
        ("FOREBAY_GATEWAY__HELD_BYTES_MAX", "1000000"),
    ];
    let gateway = Gateway::of(&stack, &overrides).await;
    // Most of one body is there, and its end does not come.
    let head =
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n{\"x\":\"";
    let mut slow = gateway.sending(head).await;
    slow.write_all(&vec![b'x'; 800_000]).await.unwrap();
    let body = json!({"model": TINY, "input": "x".repeat(500_000)});
    until_true("another body finds no room", SOON, async || {
        let answer = gateway.post_with(EMBEDDINGS, &body, &[("x-stainless-timeout", "0.1")]);
        answer.mistake() == (503, "overloaded", None) && answer.header("retry-after").is_some()
    })
    .await;
    drop(slow);
    let small = json!({"model": TINY, "input": 5, "other": "x".repeat(500_000)});
    until_true("room is given back", SOON, async || gateway.post(EMBEDDINGS, &small).status == 400)
        .await;
}

#[tokio::test]
async fn a_request_that_no_worker_does_ends_with_its_time_and_says_when_to_come_back() {
    let mut workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let body = json!({"model": TINY, "input": "x"});
    let answer = gateway.post_with(EMBEDDINGS, &body, &[("x-stainless-read-timeout", "1")]);
    assert_eq!(answer.mistake(), (503, "deadline_exceeded", None), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("retry-after-ms"), Some("2000"));
    // Whether its message has expired by then or not: no worker shall compute it.
    until_true("its job is cancelled", SOON, async || {
        let cancels: Vec<String> = workload.redis.keys("forebay:cancel:*").await.unwrap();
        cancels.len() == 1
    })
    .await;
}

#[tokio::test]
async fn connections_that_take_too_long_are_closed_and_those_at_work_are_not() {
    let workload = Workload::new().await;
    let overrides = [
        ("FOREBAY_GATEWAY__HEADER_WAIT_MS_MAX", "1000"),
        ("FOREBAY_GATEWAY__IDLE_WAIT_MS_MAX", "1000"),
        ("FOREBAY_GATEWAY__BODY_WAIT_MS_MAX", "1000"),
    ];
    let gateway = Gateway::of(&workload.stack, &overrides).await;
    let mut working = gateway.asking(TINY).await;
    let mut silent = gateway.sending(b"").await;
    let mut half_open = gateway.sending(b"GET /health HTTP/1.1\r\nhost: localhost\r\n").await;
    let mut idle = gateway.sending(HEALTH).await;
    let head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{";
    let mut slow_body = gateway.sending(head).await;
    assert_eq!(until_closed(&mut silent, SOON).await, "");
    assert_eq!(until_closed(&mut half_open, SOON).await, "");
    assert!(until_closed(&mut idle, SOON).await.contains("alive"));
    assert!(until_closed(&mut slow_body, SOON).await.starts_with("HTTP/1.1 408"));
    let _worker = workload.stack.worker(&[]).await;
    // It closes once it is idle, which is after its answer.
    assert!(until_closed(&mut working, SOON).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let mut workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[("FOREBAY_GATEWAY__CONNECTIONS_MAX", "2")]).await;
    let working = gateway.asking(TINY).await;
    let mut idle = gateway.sending(HEALTH).await;
    until_true("a third is served", SOON, async || gateway.get("/health").status == 200).await;
    assert!(until_closed(&mut idle, SOON).await.contains("alive"));
    let queue = format!("forebay.jobs.{TINY}.interactive");
    until_true("the job is queued", SOON, async || workload.stack.vhost.depth(&queue) == 1).await;
    let cancels: Vec<String> = workload.redis.keys("forebay:cancel:*").await.unwrap();
    assert_eq!(cancels, [""; 0], "the one at work is still there");
    drop(working);
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_its_requests_and_takes_no_more() {
    let workload = Workload::new().await;
    let mut gateway = Gateway::of(&workload.stack, &[]).await;
    let mut working = gateway.asking(TINY).await;
    let idle = gateway.sending(HEALTH).await;
    let queue = format!("forebay.jobs.{TINY}.interactive");
    until_true("the job is queued", SOON, async || workload.stack.vhost.depth(&queue) == 1).await;
    gateway.service.signal("TERM");
    until_true("no more connections are taken", SOON, async || {
        TcpStream::connect(("127.0.0.1", gateway.port)).await.is_err()
    })
    .await;
    assert!(gateway.service.is_running(), "a request is still at work");
    let _worker = workload.stack.worker(&[]).await;
    let answer = until_closed(&mut working, SOON).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.service.exit_code(GRACE).await, 0);
    drop(idle);
}

#[tokio::test]
async fn requests_that_outlast_the_grace_period_are_cancelled() {
    let mut workload = Workload::new().await;
    let overrides = [("FOREBAY_GATEWAY__GRACE_S", "1")];
    let mut gateway = Gateway::of(&workload.stack, &overrides).await;
    let mut working = gateway.asking(TINY).await;
    let queue = format!("forebay.jobs.{TINY}.interactive");
    until_true("the job is queued", SOON, async || workload.stack.vhost.depth(&queue) == 1).await;
    gateway.service.signal("TERM");
    assert_eq!(until_closed(&mut working, SOON).await, "");
    assert_eq!(gateway.service.exit_code(GRACE).await, 0);
    let cancels: Vec<String> = workload.redis.keys("forebay:cancel:*").await.unwrap();
    assert_eq!(cancels.len(), 1, "its job is cancelled");
}

#[tokio::test]
async fn a_store_that_is_away_is_a_503_and_recovers_by_itself() {
    let mut stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    let gateway = Gateway::of(&stack, &[("FOREBAY_STORE__TIMEOUT_MS", "500")]).await;
    assert_eq!(gateway.vectors(TINY, &json!("x")).len(), 1);
    stack.store.kill();
    let timeout = [("x-stainless-read-timeout", "1")];
    let body = json!({"model": TINY, "input": "x"});
    let answer = gateway.post_with(EMBEDDINGS, &body, &timeout);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    until_true("it says so", SOON, async || gateway.get("/readyz").status == 503).await;
    stack.store.restart().await;
    until_true("it serves again", SOON * 2, async || {
        gateway.post_with(EMBEDDINGS, &body, &[]).status == 200
    })
    .await;
    until_true("it says so", SOON, async || gateway.get("/readyz").status == 200).await;
}

#[tokio::test]
async fn a_gateway_whose_broker_is_away_is_alive_and_not_ready_and_stops_when_asked() {
    let stack = Stack::start().await.tiny();
    let away = [("FOREBAY_AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let mut gateway = Gateway::starting(&stack, &away);
    until_true("it listens", SOON, async || {
        TcpStream::connect(("127.0.0.1", gateway.port)).await.is_ok()
    })
    .await;
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(gateway.get("/readyz").status, 503);
    gateway.service.signal("TERM");
    assert_eq!(gateway.service.exit_code(GRACE).await, 0);
}
