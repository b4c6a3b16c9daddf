//! Chunks of a chat, as clients read them.

use forebay_schemas::{FinishReason, ToolCall};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::answer::tests::{generated, head},
    *,
};
use crate::openai::generate::{output::Streaming, tools::Forced};

/// The data of events; `[DONE]` as a text.
fn data(events: &str) -> Vec<Value> {
    let lines = events.split("\n\n").filter(|event| !event.is_empty());
    let data = lines.map(|event| event.strip_prefix("data: ").unwrap());
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

fn came(at: u32, text: &str) -> TokenChunk {
    TokenChunk { at, ids: vec![1], text: text.into(), logprobs: None }
}

#[allow(clippy::needless_pass_by_value)] // `json!` makes values
fn choice(delta: Value, finish_reason: Value) -> Value {
    json!({"index": 0, "delta": delta, "finish_reason": finish_reason})
}

#[test]
fn a_stream_begins_with_the_role_and_ends_with_the_reason_and_done() {
    let mut chunks = Chunks::new(ChatForm::default(), head());
    let all = [
        chunks.begin(),
        chunks.tokens(came(0, "Hel")),
        chunks.tokens(came(1, "")),
        chunks.end(generated("Hello")),
    ];
    let found = data(&all.concat());
    let deltas: Vec<&Value> = found.iter().map(|chunk| &chunk["choices"][0]).collect();
    assert_eq!(*deltas[0], choice(json!({"role": "assistant", "content": ""}), Value::Null));
    assert_eq!(*deltas[1], choice(json!({"content": "Hel"}), Value::Null));
    assert_eq!(*deltas[2], choice(json!({"content": "lo"}), Value::Null));
    assert_eq!(*deltas[3], choice(json!({}), json!("stop")));
    assert_eq!(found[4], "[DONE]");
    assert_eq!(found.len(), 5);
    for chunk in &found[..4] {
        assert_eq!(chunk["id"], "chatcmpl-j1");
        assert_eq!(
            (&chunk["object"], &chunk["created"]),
            (&json!("chat.completion.chunk"), &json!(9))
        );
        assert!(chunk.get("usage").is_none(), "{chunk}");
    }
}

#[test]
fn usage_comes_last_without_choices_where_it_was_asked_for() {
    let streaming = Streaming { is_on: true, include_usage: true };
    let mut chunks = Chunks::new(ChatForm { streaming, ..ChatForm::default() }, head());
    let found = data(&(chunks.begin() + &chunks.end(generated("Hi"))));
    let [begin, text, end, usage, done] = found.as_slice() else { panic!("{found:?}") };
    for chunk in [begin, text, end] {
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(10)));
    assert_eq!(done, "[DONE]");
}

#[test]
fn calls_come_whole_after_the_text_and_their_markup_never() {
    let form = ChatForm { has_tools: true, ..ChatForm::default() };
    let mut chunks = Chunks::new(form, head());
    let text = [chunks.tokens(came(0, "So: ")), chunks.tokens(came(1, "<tool_call>{}"))].concat();
    assert_eq!(data(&text)[0]["choices"][0]["delta"], json!({"content": "So:"}));
    let call = |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
    let calls = vec![call("a"), call("b")];
    let ended =
        Generated { tool_calls: calls, finish_reason: FinishReason::ToolCalls, ..generated("So:") };
    let found = data(&chunks.end(ended));
    let delta = |at: usize| found[at]["choices"][0]["delta"]["tool_calls"][0].clone();
    let function = json!({"name": "f", "arguments": "{}"});
    assert_eq!(delta(0), json!({"index": 0, "id": "a", "type": "function", "function": function}));
    assert_eq!(delta(1)["index"], 1);
    assert_eq!(found[2]["choices"][0], choice(json!({}), json!("tool_calls")));
    assert_eq!(found.len(), 4);
}

#[test]
fn a_call_that_has_to_be_waits_for_its_end() {
    let form = ChatForm { forced: Some(Forced::Named("f".into())), ..ChatForm::default() };
    let mut chunks = Chunks::new(form, head());
    assert_eq!(chunks.tokens(came(0, "{\"a\"")), "");
    let found = data(&chunks.end(generated("{\"a\": 1}")));
    assert_eq!(
        found[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"],
        "{\"a\": 1}"
    );
    assert_eq!(found[1]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn each_log_probability_comes_once() {
    let logprob = |text: &str| TokenLogprob {
        id: 1,
        text: text.into(),
        bytes: None,
        logprob: -0.5,
        top: Vec::new(),
    };
    let form = ChatForm { has_logprobs: true, ..ChatForm::default() };
    let mut chunks = Chunks::new(form, head());
    let first = TokenChunk { logprobs: Some(vec![logprob("Hi")]), ..came(0, "") };
    let first = data(&chunks.tokens(first));
    assert_eq!(first[0]["choices"][0]["logprobs"]["content"][0]["token"], "Hi");
    let ended = Generated { logprobs: vec![logprob("Hi"), logprob("!")], ..generated("Hi!") };
    let last = data(&chunks.end(ended));
    let content = &last[0]["choices"][0]["logprobs"]["content"];
    assert_eq!((content.as_array().unwrap().len(), &content[0]["token"]), (1, &json!("!")));
}

#[test]
fn an_error_in_the_middle_is_an_event_and_the_end() {
    let mut chunks = Chunks::new(ChatForm::default(), head());
    let found = data(&chunks.fail(&ApiError::internal("x")));
    assert_eq!(found[0]["error"]["message"], "x");
    assert_eq!(found.len(), 1);
}

proptest! {
    #[test]
    fn the_deltas_of_a_stream_are_the_text(
        pieces in proptest::collection::vec("[a-zé< \\n]{0,4}", 0..6),
        lost in 0..6_usize,
        has_tools in any::<bool>(),
    ) {
        let whole = pieces.concat();
        let mut chunks = Chunks::new(ChatForm { has_tools, ..ChatForm::default() }, head());
        let kept = pieces.len() - lost.min(pieces.len());
        // The last pieces may never come: the record has them.
        let came = pieces[..kept].iter().map(|piece| chunks.tokens(came(0, piece)));
        let mut events: String = came.collect();
        events.push_str(&chunks.end(generated(&whole)));
        let text: String = data(&events).iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        prop_assert_eq!(text, whole);
    }
}
