//! Text over HTTP as a whole: what jobs are made of requests, and answers of their records. A stand-in for a worker
//! writes them.

use forebay_tests::gateway::{Gateway, until_closed};
use forebay_tests::model::TINY;
use forebay_tests::patience::SOON;
use forebay_tests::stack::Stack;
use forebay_tests::writer::{Taken, Writer};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::commands::json_lines;

/// A connection that posts a body and ends with the answer.
pub(super) async fn posting(gateway: &Gateway, path: &str, body: &Value, key: &str) -> TcpStream {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    gateway.sending(request.as_bytes()).await
}

/// The head and the body of an answer.
pub(super) async fn answered(stream: &mut TcpStream) -> (String, Value) {
    let all = until_closed(stream, SOON).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {all}"));
    (head.to_ascii_lowercase(), body)
}

/// A gateway with a stand-in for its worker.
pub(super) async fn with_writer(stack: &Stack) -> (Gateway, Writer) {
    let gateway = Gateway::of(stack, &[]).await;
    assert_eq!(stack.forebay(&["queues"]).await.code, 0);
    (gateway, Writer::of(stack, TINY).await)
}

/// The job of a request, and the connection that waits for its answer.
async fn asked(
    gateway: &Gateway,
    writer: &mut Writer,
    path: &str,
    body: &Value,
) -> (Taken, TcpStream) {
    let stream = posting(gateway, path, body, "-").await;
    (writer.take().await, stream)
}

fn question() -> Value {
    let developer = json!({"role": "developer", "content": "Be kind."});
    json!({"model": TINY, "messages": [developer, {"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn a_chat_is_a_job_of_the_interactive_lane_and_its_record_the_answer() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let mut body = question();
    let more = json!({"max_completion_tokens": 9, "temperature": 0, "stop": "x", "seed": 7, "logprobs": true,
                      "top_logprobs": 1, "logit_bias": {"5": -100}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (taken, mut stream) = asked(&gateway, &mut writer, "/v1/chat/completions", &body).await;
    assert_eq!(taken.job["task"], "generate");
    let messages =
        json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]);
    assert_eq!(taken.job["input"], json!({"messages": messages}));
    let params = &taken.job["params"];
    assert_eq!(
        (&params["max_tokens"], &params["seed"], &params["stop"]),
        (&json!(9), &json!(7), &json!(["x"]))
    );
    assert_eq!((&params["logprobs"], &params["stream"]), (&json!(1), &Value::Null), "{params}");
    assert!(taken.job["expires_in_ms"].as_u64().unwrap() > 100_000, "{}", taken.job);
    let id = taken.id().to_owned();
    let likely = json!({"id": 1, "text": "Hello", "logprob": -0.5});
    let logprobs = json!([{"id": 1, "text": "Hello", "logprob": -0.5, "top": [likely]}]);
    taken
        .end_with(json!({"text": "Hello", "finish_reason": "length", "logprobs": logprobs}), 3)
        .await;
    let (head, answer) = answered(&mut stream).await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains(&format!("x-forebay-model: {TINY}")),
        "{head}"
    );
    assert_eq!(answer["id"], format!("chatcmpl-{id}"));
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("Hello"), &json!("length"))
    );
    assert_eq!(choice["logprobs"]["content"][0]["top_logprobs"][0]["token"], "Hello");
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14,
                       "prompt_tokens_details": {"cached_tokens": 4}});
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn completions_have_an_answer_to_each_prompt_and_responses_their_items() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let body = json!({"model": TINY, "prompt": ["one", "two"], "max_tokens": 5});
    let (first, mut stream) = asked(&gateway, &mut writer, "/v1/completions", &body).await;
    for taken in [first, writer.take().await] {
        let prompt = taken.job["input"]["prompt"].as_str().unwrap().to_owned();
        taken.end(&format!("{prompt}!"), 1).await;
    }
    let (_, answer) = answered(&mut stream).await;
    let texts: Vec<&Value> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["one!", "two!"]);
    assert_eq!(answer["usage"]["total_tokens"], 24);

    let body =
        json!({"model": TINY, "input": "Hi", "instructions": "Be kind.", "max_output_tokens": 5});
    let (taken, mut stream) = asked(&gateway, &mut writer, "/v1/responses", &body).await;
    assert_eq!(taken.job["input"]["messages"][0], json!({"role": "system", "content": "Be kind."}));
    assert_eq!(taken.job["params"]["max_tokens"], 5);
    taken.end("Hello", 2).await;
    let (_, answer) = answered(&mut stream).await;
    assert_eq!(
        (&answer["status"], &answer["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("Hello"))
    );
    assert_eq!(answer["usage"]["total_tokens"], 13);
}

#[tokio::test]
async fn a_job_s_failure_is_the_answer_s_by_its_code() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    for (code, status, final_for_all) in [
        ("input_too_long", "400", false),
        ("out_of_memory", "500", true),
        ("task_not_supported", "400", false),
    ] {
        let (taken, mut stream) =
            asked(&gateway, &mut writer, "/v1/chat/completions", &question()).await;
        taken.fail(code, "`messages` are too long").await;
        let (head, answer) = answered(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert_eq!(head.contains("x-should-retry: false"), final_for_all, "{head}");
        assert_eq!(answer["error"]["code"], code);
    }
    let wrong =
        gateway.post("/v1/chat/completions", &json!({"model": TINY, "messages": [], "n": 1}));
    assert_eq!(wrong.mistake(), (400, "invalid_request", Some("messages")), "{wrong:?}");
    let image =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let wrong = gateway.post("/v1/chat/completions", &json!({"model": TINY, "messages": image}));
    assert_eq!(wrong.mistake(), (400, "invalid_request", Some("messages")), "{wrong:?}");
    let unknown = gateway.post(
        "/v1/chat/completions",
        &json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}),
    );
    assert_eq!(unknown.mistake(), (404, "model_not_found", Some("model")), "{unknown:?}");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_job() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let mut redis = stack.redis().await;
    for is_streamed in [false, true] {
        let mut body = question();
        body["stream"] = json!(is_streamed);
        let (mut taken, stream) = asked(&gateway, &mut writer, "/v1/chat/completions", &body).await;
        if is_streamed {
            taken.tokens(&[1], "Hel").await;
        }
        drop(stream);
        let key = format!("forebay:cancel:{}", taken.id());
        forebay_tests::patience::until_true("the job is cancelled", SOON, async || {
            // A body that is written shows that the client left.
            if is_streamed {
                taken.tokens(&[2], "lo").await;
            }
            let there: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut redis).await.unwrap();
            there
        })
        .await;
    }
}

#[tokio::test]
async fn a_tenant_is_charged_for_what_was_read_and_written_and_reserves_what_may_be() {
    let stack = Stack::start().await.tiny();
    let limits = ["tenants", "create", "acme", "--tokens-per-minute", "1000"];
    let created = stack.forebay(&limits).await;
    assert_eq!(created.code, 0, "{created:?}");
    let created = stack.forebay(&["keys", "create", "--tenant", "acme", "--json"]).await;
    let key = json_lines(&created)[0]["key"].as_str().unwrap().to_owned();
    let (gateway, mut writer) = with_writer(&stack).await;
    let mut body = question();
    body["max_tokens"] = json!(400);
    let left = |head: &str| {
        let name = "x-ratelimit-remaining-tokens: ";
        head.split(name).nth(1).unwrap().lines().next().unwrap().parse::<u64>().unwrap()
    };
    let mut stream = posting(&gateway, "/v1/chat/completions", &body, &key).await;
    writer.take().await.end("Hello", 3).await;
    let (head, _) = answered(&mut stream).await;
    let reserved = 1_000 - left(&head);
    assert!((400..440).contains(&reserved), "{reserved} were reserved");
    let mut seen = 0;
    forebay_tests::patience::until_true("the rest is there again", SOON, async || {
        let mut stream = posting(&gateway, "/v1/chat/completions", &body, &key).await;
        writer.take().await.end("Hello", 3).await;
        let (head, _) = answered(&mut stream).await;
        seen += 1;
        // All before took 14 tokens each.
        1_000 - left(&head) == reserved + 14 * seen
    })
    .await;
    body["max_tokens"] = json!(2_000);
    let mut stream = posting(&gateway, "/v1/chat/completions", &body, &key).await;
    let (head, answer) = answered(&mut stream).await;
    assert!(head.starts_with("http/1.1 400"), "{head}: {answer}");
    assert_eq!(answer["error"]["code"], "request_too_large");
}
