//! The gateway as its clients meet it: vectors, models, mistakes, native jobs.

use std::path::PathBuf;
use std::process::Command;

use forebay_tests::binaries::checkout;
use forebay_tests::gateway::Gateway;
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::record::result;
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use super::python::interpreter;

#[tokio::test]
async fn embeddings_are_those_of_the_queue_in_both_encodings() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let texts = json!(["water in a pool", "", "the gates open"]);
    let job = workload.job("").with("input", texts.clone());
    workload.submit(&job).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!(gateway.vectors(TINY, &texts), record.vectors);
    let asked = json!({"model": TINY, "input": texts, "encoding_format": "base64", "user": null});
    let answer = gateway.post("/v1/embeddings", &asked);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let data = answer.body["data"].as_array().unwrap();
    let packed: Vec<Vec<f32>> = data.iter().map(|row| unpacked(&row["embedding"])).collect();
    assert_eq!(packed, record.vectors);
    let tokens = record.count("/usage/input_tokens");
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    assert_eq!((&answer.body["usage"], &answer.body["model"]), (&usage, &json!(TINY)));
}

/// Floats of their base64.
fn unpacked(value: &Value) -> Vec<f32> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = value.as_str().unwrap();
    assert_eq!(text.len() % 4, 0, "it is padded");
    let digits = text.trim_end_matches('=').chars().map(|c| DIGITS.find(c).unwrap() as u32);
    let digits: Vec<u32> = digits.collect();
    let mut bytes: Vec<u8> = Vec::new();
    for group in digits.chunks(4) {
        let whole =
            group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend(&whole.to_be_bytes()[1..group.len()]);
    }
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "whole floats");
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[tokio::test]
async fn a_list_longer_than_a_job_is_answered_whole_and_in_order() {
    let workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[("FOREBAY_LIMITS__INPUTS_MAX", "3")]).await;
    let texts: Vec<String> = (0..40).map(|n| format!("passage {n} of the river")).collect();
    let together = gateway.vectors(TINY, &json!(texts));
    assert_eq!(together.len(), 40);
    for n in [0, 1, 2, 3, 20, 39] {
        assert_eq!(gateway.vectors(TINY, &json!(texts[n]))[0], together[n], "passage {n}");
    }
    workload.queues_are_empty().await;
}

#[tokio::test]
async fn an_input_that_fails_fails_the_request_and_is_named_by_its_position() {
    let workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[("FOREBAY_LIMITS__INPUTS_MAX", "3")]).await;
    let mut texts = vec!["short".to_owned(); 10];
    texts[7] = "long ".repeat(2_000);
    let answer = gateway.post("/embed", &json!({"inputs": texts, "truncate": false}));
    assert_eq!(answer.mistake(), (400, "input_too_long", Some("inputs")), "{answer:?}");
    assert!(answer.message().starts_with("`inputs[7]`"), "{answer:?}");
    let cut = gateway.post("/embed", &json!({"inputs": texts}));
    assert_eq!(cut.body.as_array().map(Vec::len), Some(10), "{cut:?}");
}

#[tokio::test]
async fn mistakes_are_answered_at_once_by_their_field() {
    let stack = Stack::start().await.tiny();
    // No worker runs: none of these is sent to one.
    let gateway = Gateway::of(&stack, &[("FOREBAY_GATEWAY__INPUTS_MAX", "5")]).await;
    let embeddings = "/v1/embeddings";
    let six = vec!["x"; 6];
    for (path, body, mistake) in [
        (embeddings, json!({"model": TINY}), (400, "invalid_request", Some("input"))),
        (embeddings, json!({"model": TINY, "input": []}), (400, "invalid_request", Some("input"))),
        (embeddings, json!({"model": TINY, "input": six}), (400, "invalid_request", Some("input"))),
        (
            embeddings,
            json!({"model": TINY, "input": [9906, 1]}),
            (400, "invalid_request", Some("input")),
        ),
        (
            embeddings,
            json!({"model": TINY, "input": "x", "dimensions": -1}),
            (400, "invalid_request", Some("dimensions")),
        ),
        (embeddings, json!({"model": 7, "input": "x"}), (400, "invalid_request", Some("model"))),
        (
            embeddings,
            json!({"model": "text-embedding-3-small", "input": "x"}),
            (404, "model_not_found", Some("model")),
        ),
        (
            embeddings,
            json!({"model": "BAAI/bge", "input": "x"}),
            (404, "model_not_found", Some("model")),
        ),
        (embeddings, json!([]), (400, "invalid_request", None)),
        (
            "/v1/rerank",
            json!({"query": "q", "documents": []}),
            (400, "invalid_request", Some("documents")),
        ),
        ("/predict", json!({"inputs": ["a", "b"]}), (400, "invalid_request", Some("inputs"))),
        (
            "/v1/jobs",
            json!({"model": TINY, "task": "embed", "input": 5}),
            (400, "invalid_request", Some("input")),
        ),
        (
            "/v1/jobs",
            json!({"model": TINY, "task": "embed", "input": "x", "id": "mine"}),
            (400, "invalid_request", Some("id")),
        ),
        (
            "/v1/chat/completions",
            json!({"model": TINY, "messages": []}),
            (400, "invalid_request", Some("messages")),
        ),
        ("/v1/nothing", json!({}), (404, "unknown_path", None)),
        ("/v1/models", json!({}), (405, "wrong_method", None)),
    ] {
        let answer = gateway.post(path, &body);
        assert_eq!(answer.mistake(), mistake, "{path} {body}: {answer:?}");
        assert!(!answer.message().is_empty(), "{path} {body}");
        assert!(answer.header("x-request-id").is_some(), "{path} {body}");
        assert_eq!(answer.body["error"]["type"], "invalid_request_error", "{path} {body}");
    }
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"{\"model\": \"\\ud800\", \"input\": \"x\"}"] {
        let answer = gateway.post_bytes(embeddings, bytes, &[]);
        assert_eq!(answer.status, 400, "{bytes:?}: {answer:?}");
    }
    let depths: u64 = stack.vhost.depths().unwrap().iter().map(|(_, depth)| depth).sum();
    assert_eq!(depths, 0, "nothing was published");
}

#[tokio::test]
async fn models_are_listed_and_found_by_their_id() {
    let stack = Stack::start().await.tiny();
    let gateway = Gateway::of(&stack, &[]).await;
    let list = gateway.get("/v1/models");
    assert_eq!((list.status, &list.body["data"][0]["id"]), (200, &json!(TINY)), "{list:?}");
    assert_eq!((&list.body["object"], &list.body["has_more"]), (&json!("list"), &json!(false)));
    assert!(list.body["data"][0]["created"].as_u64().unwrap() < u64::from(u32::MAX));
    let one = gateway.get(&format!("/v1/models/{TINY}"));
    assert_eq!((one.status, &one.body), (200, &list.body["data"][0]));
    for path in ["/v1/models/BAAI%2Fbge", "/v1/models/BAAI/bge"] {
        let none = gateway.get(path);
        assert_eq!(none.mistake(), (404, "model_not_found", Some("model")), "{none:?}");
        assert!(none.message().contains("`BAAI/bge`"), "{none:?}");
    }
    for path in ["/v1/models/%ff", "/v1/jobs/%ff"] {
        let refused = gateway.get(path);
        assert_eq!(refused.mistake(), (400, "invalid_request", Some("id")), "{refused:?}");
    }
    let own_id = gateway.post_with("/v1/models", &json!({}), &[("x-request-id", "req-7")]);
    assert_eq!(own_id.header("x-request-id"), Some("req-7"));
}

#[tokio::test]
async fn health_is_answered_on_both_ports() {
    let stack = Stack::start().await.tiny();
    let gateway = Gateway::of(&stack, &[]).await;
    for path in ["/health", "/healthz", "/readyz"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    let (status, metrics) = gateway.service.get("/metrics").unwrap();
    assert!(status == 200 && metrics.contains("forebay_gateway_requests_total"), "{metrics}");
    gateway.get("/somewhere-else-that-must-not-show");
    let (_, metrics) = gateway.service.get("/metrics").unwrap();
    assert!(metrics.contains("endpoint=\"other\"") && !metrics.contains("somewhere"), "{metrics}");
    assert!(
        gateway.service.log().contains("to this machine only"),
        "it says that there are no keys"
    );
}

#[tokio::test]
async fn a_job_is_confirmed_awaited_and_read() {
    let workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let body = json!({"model": TINY, "task": "embed", "input": ["a", "b"], "metadata": {"k": "v"}});
    let submitted = gateway.post("/v1/jobs", &body);
    assert_eq!((submitted.status, &submitted.body["state"]), (202, &json!("queued")));
    let location = submitted.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v1/jobs/{}", submitted.body["id"].as_str().unwrap()));
    let queue = workload.stack.batch_queue();
    until_true("it is queued", SOON, async || workload.stack.vhost.depth(&queue) == 1).await;
    let pending = gateway.get(&format!("{location}?wait=0.2"));
    assert_eq!((pending.status, &pending.body["state"]), (202, &json!("pending")));
    let _worker = workload.stack.worker(&[]).await;
    let record = gateway.get(&format!("{location}?wait=30"));
    assert_eq!((record.status, &record.body["state"]), (200, &json!("succeeded")), "{record:?}");
    assert_eq!(record.body["output"]["embeddings"].as_array().map(Vec::len), Some(2));
    assert_eq!(record.body["metadata"], json!({"k": "v"}));
    let late = gateway.delete(&location);
    assert_eq!((late.status, &late.body["state"]), (200, &json!("succeeded")));
    assert_eq!(gateway.get("/v1/jobs/no.such.id").mistake(), (404, "job_not_found", Some("id")));
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_a_worker_has_it_ends_as_cancelled() {
    let workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let body = json!({"model": TINY, "task": "embed", "input": "x", "lane": "interactive"});
    let submitted = gateway.post("/v1/jobs", &body);
    let path = format!("/v1/jobs/{}", submitted.body["id"].as_str().unwrap());
    let asked = gateway.delete(&path);
    assert_eq!((asked.status, &asked.body["state"]), (202, &json!("cancelling")));
    let _worker = workload.stack.worker(&[]).await;
    let record = gateway.get(&format!("{path}?wait=30"));
    assert_eq!(record.body["state"], "cancelled", "{record:?}");
    let again = gateway.delete(&path);
    assert_eq!((again.status, &again.body["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_repeated_request_with_one_idempotency_key_is_one_job() {
    let workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let other_replica = Gateway::of(&workload.stack, &[]).await;
    let key = [("idempotency-key", "7b0c6a3e-key")];
    let body = |text: &str| json!({"model": TINY, "task": "embed", "input": text});
    let id = |gateway: &Gateway, text: &str| {
        let answer = gateway.post_with("/v1/jobs", &body(text), &key);
        assert_eq!(answer.status, 202, "{answer:?}");
        (
            answer.body["id"].as_str().unwrap().to_owned(),
            answer.header("idempotent-replayed").is_some(),
        )
    };
    let (first, replayed) = id(&gateway, "a");
    assert!(!replayed);
    assert_eq!(id(&other_replica, "a").0, first, "the key is the same on every replica");
    assert_ne!(id(&gateway, "another request").0, first, "a key is no excuse for another's answer");
    let _worker = workload.stack.worker(&[]).await;
    let record = gateway.get(&format!("/v1/jobs/{first}?wait=30"));
    assert_eq!(record.body["state"], "succeeded", "{record:?}");
    workload.queues_are_empty().await;
    assert_eq!(id(&gateway, "a"), (first, true), "it is not computed once more");
    workload.queues_are_empty().await;
    let wrong = gateway.post_with("/v1/jobs", &body("a"), &[("idempotency-key", "a b")]);
    assert_eq!(wrong.mistake(), (400, "invalid_request", Some("Idempotency-Key")));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_job() {
    let mut workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let asking = gateway.asking(TINY).await;
    let queue = format!("forebay.jobs.{TINY}.interactive");
    until_true("the job is queued", SOON, async || workload.stack.vhost.depth(&queue) == 1).await;
    let redis = &mut workload.redis;
    let cancels: Vec<String> = redis.keys("forebay:cancel:*").await.unwrap();
    assert_eq!(cancels, [""; 0]);
    drop(asking);
    let cancelled = until("the job is cancelled", SOON, async || {
        let found: Vec<String> = redis.keys("forebay:cancel:*").await.unwrap();
        found.first().cloned()
    });
    let cancelled = cancelled.await;
    let _worker = workload.stack.worker(&[]).await;
    let id = cancelled.strip_prefix("forebay:cancel:").unwrap();
    assert_eq!(result(&mut workload.redis, id).await.state(), "cancelled");
}

#[tokio::test]
async fn the_official_openai_package_embeds_by_its_defaults() {
    let workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let mut command = Command::new(interpreter());
    let script: PathBuf = checkout().join("examples/python/openai_embeddings.py");
    command.arg(script).env("FOREBAY_GATEWAY_URL", gateway.url("")).env("FOREBAY_MODEL", TINY);
    let finished = workload.stack.run(command).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.output.contains("2 vectors"), "{finished:?}");
    assert!(finished.output.contains("refused: 404 model_not_found"), "{finished:?}");
}
