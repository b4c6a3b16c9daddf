//! Text over HTTP by a model that writes it: whole, as it comes, held to a schema, and over a link that is cut.

use forebay_tests::gateway::{Gateway, events, until_closed, until_read};
use forebay_tests::generator::{GENERATOR, ids, worker};
use forebay_tests::patience::{PATIENT, SOON};
use forebay_tests::relay::{Mode, Relay};
use forebay_tests::stack::Stack;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::gateway_text::posting;

fn question(more: &Value) -> Value {
    let mut body = json!({"model": GENERATOR, "max_tokens": 24, "temperature": 0,
                          "messages": [{"role": "user", "content": "What is the capital of France?"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The answer to a body, as JSON or as the data of its events.
async fn answer(gateway: &Gateway, path: &str, body: &Value) -> Vec<Value> {
    let mut stream = posting(gateway, path, body, "-").await;
    let all = until_closed(&mut stream, PATIENT).await;
    let (head, rest) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{all}");
    if let Ok(whole) = serde_json::from_str(rest) {
        return vec![whole];
    }
    let data = rest.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[tokio::test]
async fn a_text_is_one_whole_and_as_it_comes_by_every_interface() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let chat = "/v1/chat/completions";
    let whole = answer(&gateway, chat, &question(&json!({"logprobs": true}))).await[0].clone();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("Paris"), "{whole}");
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(whole["usage"]["completion_tokens"], tokens.len(), "{whole}");

    let body = question(
        &json!({"stream": true, "logprobs": true, "stream_options": {"include_usage": true}}),
    );
    let chunks = answer(&gateway, chat, &body).await;
    let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(deltas.collect::<String>(), text);
    let came =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(came.flatten().collect::<Vec<_>>(), tokens.iter().collect::<Vec<_>>());
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], whole["usage"]["completion_tokens"], "{usage}");

    let input = &body["messages"];
    let body = json!({"model": GENERATOR, "input": input, "max_output_tokens": 24, "temperature": 0, "stream": true});
    let events = answer(&gateway, "/v1/responses", &body).await;
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], text, "{response}");

    let body = json!({"model": GENERATOR, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8});
    let whole = answer(&gateway, "/v1/completions", &body).await[0]["choices"][0].clone();
    let mut body = body;
    body["stream"] = json!(true);
    let chunks = answer(&gateway, "/v1/completions", &body).await;
    let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    assert_eq!(texts.collect::<String>(), whole["text"].as_str().unwrap());
}

#[tokio::test]
async fn an_answer_keeps_to_its_schema_and_a_call_that_has_to_be_to_its_tool() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
                        "required": ["city"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let keeps = |text: &Value| {
        let object: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(object["city"].is_string(), "{object}");
    };
    let chat = "/v1/chat/completions";
    let body = question(&json!({"response_format": format, "max_tokens": 64}));
    let kept = answer(&gateway, chat, &body).await[0].clone();
    keeps(&kept["choices"][0]["message"]["content"]);
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema}});
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "weather"}})]
    {
        for is_streamed in [false, true] {
            let more = json!({"tools": [tool], "tool_choice": choice, "max_tokens": 64, "stream": is_streamed});
            let found = answer(&gateway, chat, &question(&more)).await;
            let part = if is_streamed { "delta" } else { "message" };
            let calls =
                found.iter().filter_map(|one| one["choices"][0][part]["tool_calls"][0].as_object());
            let calls: Vec<_> = calls.collect();
            assert_eq!(calls.len(), 1, "{found:?}");
            assert_eq!(calls[0]["function"]["name"], "weather");
            keeps(&calls[0]["function"]["arguments"]);
            let ended = |one: &Value| one["choices"][0]["finish_reason"] == "tool_calls";
            assert!(found.iter().any(ended), "{found:?}");
        }
    }
}

/// Follows a job from the event with this id on, by this port.
async fn following(port: u16, id: &str, last: Option<&str>) -> TcpStream {
    let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /v1/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\n{last}connection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The tokens of events, and the text with them.
fn tokens(events: &[Value]) -> (Vec<u64>, String) {
    let parts: Vec<&Value> = events.iter().map(|event| &event["tokens"]).collect();
    let ids = parts.iter().filter_map(|part| part["ids"].as_array()).flatten();
    let text = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    (ids.map(|id| id.as_u64().unwrap()).collect(), text)
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_at_another_gateway_without_a_gap() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let relay = Relay::to(gateway.port);
    let other = Gateway::of(&stack, &[]).await;
    let params = json!({"max_tokens": 160, "ignore_eos": true, "temperature": 0.8, "seed": 5, "stream": true,
                        "return_token_ids": true});
    let body = json!({"model": GENERATOR, "task": "generate", "lane": "interactive", "params": params,
                      "input": {"prompt": "A forebay is"}});
    let answer = gateway.post("/v1/jobs", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.body["id"].as_str().unwrap();
    let mut stream = following(relay.port(), id, None).await;
    let mut came = until_read(&mut stream, "\"tokens\":").await;
    relay.set(Mode::Cut);
    came.push_str(&until_closed(&mut stream, SOON).await);
    // A client that lost its connection knows the events that are whole, and the last id of those.
    let whole = came.rfind("\n\n").map_or("", |end| &came[..end + 2]);
    let last = whole.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let (mut ids_before, text_before) = tokens(&events(whole));
    assert_eq!(last, ids_before.len().to_string());
    assert!(ids_before.len() < 160, "it was cut in the middle: {whole}");

    let mut stream = following(other.port, id, Some(last)).await;
    let rest = events(&until_closed(&mut stream, PATIENT).await);
    let (ids_after, text_after) = tokens(&rest);
    let record = &rest[rest.len() - 2];
    assert_eq!(record["state"], "succeeded", "{record}");
    ids_before.extend(ids_after);
    assert_eq!(ids_before, ids(&record["output"]));
    assert_eq!(format!("{text_before}{text_after}"), record["output"]["text"]);
}
