//! Events of a response, as clients read them.

use forebay_schemas::{FinishReason, ToolCall, Usage};
use serde_json::Map;

use super::{super::answer::answer, *};
use crate::openai::generate::tools::Forced;

fn head() -> Head {
    Head { id: "j1".into(), model: "m".into(), created: 9 }
}

fn form() -> ResponseForm {
    let repeated: Map<String, Value> =
        [("tool_choice".to_owned(), json!("auto"))].into_iter().collect();
    ResponseForm {
        is_streamed: true,
        has_logprobs: false,
        has_tools: false,
        forced: None,
        repeated,
    }
}

fn generated(text: &str) -> Generated {
    let usage = Usage { input_tokens: 7, output_tokens: 3, cached_tokens: 4, ..Usage::default() };
    let finish_reason = FinishReason::Stop;
    Generated {
        text: text.into(),
        finish_reason,
        tool_calls: Vec::new(),
        logprobs: Vec::new(),
        usage,
    }
}

fn came(text: &str) -> TokenChunk {
    TokenChunk { at: 0, ids: vec![1], text: text.into(), logprobs: None }
}

/// The data of events, each of which is named in front by its type, and numbered.
fn data(events: &str) -> Vec<Value> {
    let read = |(number, event): (usize, &str)| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], number);
        data
    };
    events.split("\n\n").filter(|event| !event.is_empty()).enumerate().map(read).collect()
}

fn types(data: &[Value]) -> Vec<&str> {
    data.iter().map(|data| data["type"].as_str().unwrap()).collect()
}

#[test]
fn a_text_comes_between_its_beginning_and_its_end_and_the_last_event_is_the_whole_answer() {
    let mut events = ResponseEvents::new(form(), head());
    let all = events.begin() + &events.tokens(came("Hel")) + &events.end(generated("Hello"));
    let found = data(&all);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&found), expected);
    assert_eq!((&found[4]["delta"], &found[5]["delta"]), (&json!("Hel"), &json!("lo")));
    assert_eq!(found[6]["text"], "Hello");
    let whole: Value =
        serde_json::from_slice(&answer(&form(), &head(), generated("Hello")).unwrap()).unwrap();
    assert_eq!(found[9]["response"], whole);
    assert_eq!(
        (&whole["id"], &whole["object"], &whole["tool_choice"]),
        (&json!("resp_j1"), &json!("response"), &json!("auto"))
    );
    let part = json!({"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []});
    let message = json!({"type": "message", "id": "msg_j1", "status": "completed", "role": "assistant",
                         "content": [part]});
    assert_eq!(whole["output"], json!([message]));
    let usage = json!({"input_tokens": 7, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3,
                       "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10});
    assert_eq!(whole["usage"], usage);
}

#[test]
fn calls_are_items_of_their_own() {
    let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    let called = Generated {
        tool_calls: vec![call],
        finish_reason: FinishReason::ToolCalls,
        ..generated("")
    };
    let mut events = ResponseEvents::new(ResponseForm { has_tools: true, ..form() }, head());
    let found = data(&(events.tokens(came("<tool_call>{}")) + &events.end(called.clone())));
    let expected = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&found), expected);
    let item = json!({"type": "function_call", "id": "fc_j1_0", "status": "completed", "call_id": "c", "name": "f",
                      "arguments": "{}"});
    assert_eq!(found[4]["response"]["output"], json!([item]));
    let whole: Value = serde_json::from_slice(&answer(&form(), &head(), called).unwrap()).unwrap();
    assert_eq!(found[4]["response"], whole);
}

#[test]
fn an_answer_that_was_cut_is_incomplete_and_one_without_text_is_an_empty_message() {
    let cut = Generated { finish_reason: FinishReason::Length, ..generated("") };
    let mut events = ResponseEvents::new(form(), head());
    let found = data(&events.end(cut));
    let last = found.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn a_call_that_has_to_be_is_made_of_the_text() {
    let form = ResponseForm { forced: Some(Forced::Named("f".into())), ..form() };
    let mut events = ResponseEvents::new(form, head());
    assert_eq!(events.tokens(came("{\"a\"")), "");
    let found = data(&events.end(generated("{\"a\": 1}")));
    let item = &found.last().unwrap()["response"]["output"][0];
    assert_eq!((&item["name"], &item["arguments"]), (&json!("f"), &json!("{\"a\": 1}")));
}

#[test]
fn an_error_is_a_response_that_failed() {
    let mut events = ResponseEvents::new(form(), head());
    let found = data(&events.fail(&ApiError::internal("x")));
    assert_eq!(found[0]["type"], "response.failed");
    assert_eq!(found[0]["response"]["error"], json!({"code": "internal", "message": "x"}));
    assert_eq!(found[0]["response"]["status"], "failed");
}
