//! The answer as a whole.

use forebay_schemas::{FinishReason, ToolCall, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use super::ChatForm;
use crate::openai::generate::{
    logprobs::ChatLogprobs,
    output::{Generated, Head},
};

/// The answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletion")]
pub struct ChatAnswer {
    id: String,
    #[schemars(extend("const" = "chat.completion"))]
    object: &'static str,
    /// When the answer began, in seconds of Unix time.
    created: u64,
    /// The model that answered.
    model: String,
    /// One answer.
    choices: [Choice; 1],
    usage: TextUsage,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatChoice")]
struct Choice {
    index: u32,
    message: Said,
    /// Absent unless it was asked for.
    logprobs: Option<ChatLogprobs>,
    #[schemars(extend("enum" = ["stop", "length", "tool_calls"]))]
    finish_reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AssistantMessage")]
struct Said {
    #[schemars(extend("const" = "assistant"))]
    role: &'static str,
    /// The text; null where the answer is calls alone.
    content: Option<String>,
    /// There are no refusals.
    refusal: Option<()>,
    /// The tools that the model called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Called>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ChatToolCall")]
pub(super) struct Called {
    pub(super) id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "function"))]
    pub(super) kind: &'static str,
    pub(super) function: CalledFunction,
}

/// A function that was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ChatCalledFunction")]
pub(super) struct CalledFunction {
    pub(super) name: String,
    /// The text of a JSON object.
    pub(super) arguments: String,
}

/// The tokens of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TextUsage {
    /// Those of the prompt.
    pub prompt_tokens: u64,
    /// Those of the answer.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
    /// Those of the prompt in detail.
    pub prompt_tokens_details: PromptDetails,
}

/// The usage in a chunk of a stream that ends with it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum ChunkUsage {
    /// Null, in all chunks but the last.
    Later,
    /// In the last.
    Known(TextUsage),
}

impl ChunkUsage {
    /// `None` is later.
    pub fn of(usage: Option<TextUsage>) -> Self {
        usage.map_or(Self::Later, Self::Known)
    }
}

/// The tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PromptDetails {
    /// Those that were remembered, and not computed again.
    pub cached_tokens: u64,
}

impl From<Usage> for TextUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens },
        }
    }
}

impl From<ToolCall> for Called {
    fn from(call: ToolCall) -> Self {
        let ToolCall { id, name, arguments } = call;
        Self { id, kind: "function", function: CalledFunction { name, arguments } }
    }
}

/// The text and the calls of an output, and how it ended.
pub(super) fn parts(
    form: &ChatForm,
    head: &Head,
    generated: &mut Generated,
) -> (Vec<Called>, &'static str) {
    let mut calls = std::mem::take(&mut generated.tool_calls);
    let forced = form.forced.as_ref().filter(|_| calls.is_empty());
    if let Some(call) = forced.and_then(|forced| forced.call(&generated.text, || head.call_id())) {
        generated.text.clear();
        calls.push(call);
        // It is whole, though the last token that there was room for ended it.
        generated.finish_reason = FinishReason::ToolCalls;
    }
    let reason = match generated.finish_reason {
        FinishReason::Length => FinishReason::Length,
        // Of a call that had to be, the worker knows nothing.
        _ if !calls.is_empty() => FinishReason::ToolCalls,
        reason => reason,
    };
    (calls.into_iter().map(Called::from).collect(), reason.as_str())
}

/// The id of an answer.
pub(super) fn id_of(head: &Head) -> String {
    format!("chatcmpl-{}", head.id)
}

/// The body of the answer.
pub fn answer(
    form: &ChatForm,
    head: &Head,
    mut generated: Generated,
) -> serde_json::Result<Vec<u8>> {
    let (tool_calls, finish_reason) = parts(form, head, &mut generated);
    let content = Some(generated.text).filter(|text| !text.is_empty() || tool_calls.is_empty());
    let logprobs = form.has_logprobs.then(|| ChatLogprobs::of(generated.logprobs));
    let message = Said { role: "assistant", content, refusal: None, tool_calls };
    serde_json::to_vec(&ChatAnswer {
        id: id_of(head),
        object: "chat.completion",
        created: head.created,
        model: head.model.clone(),
        choices: [Choice { index: 0, message, logprobs, finish_reason }],
        usage: generated.usage.into(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use forebay_schemas::TokenLogprob;
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::generate::tools::Forced;

    pub(in super::super) fn head() -> Head {
        Head { id: "j1".into(), model: "m".into(), created: 9 }
    }

    pub(in super::super) fn generated(text: &str) -> Generated {
        let usage =
            Usage { input_tokens: 7, output_tokens: 3, cached_tokens: 4, ..Usage::default() };
        let finish_reason = FinishReason::Stop;
        Generated {
            text: text.into(),
            finish_reason,
            tool_calls: Vec::new(),
            logprobs: Vec::new(),
            usage,
        }
    }

    fn written(form: &ChatForm, generated: Generated) -> Value {
        serde_json::from_slice(&answer(form, &head(), generated).unwrap()).unwrap()
    }

    #[test]
    fn an_answer_has_all_that_strict_clients_ask_for() {
        let expected = json!({
            "id": "chatcmpl-j1", "object": "chat.completion", "created": 9, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": null},
                         "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
                      "prompt_tokens_details": {"cached_tokens": 4}},
        });
        assert_eq!(written(&ChatForm::default(), generated("Hi")), expected);
        // An answer without text is an empty one.
        assert_eq!(
            written(&ChatForm::default(), generated(""))["choices"][0]["message"]["content"],
            ""
        );
    }

    #[test]
    fn calls_stand_without_text() {
        let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let found = Generated { tool_calls: vec![call], ..generated("") };
        let choice = written(&ChatForm::default(), found)["choices"][0].clone();
        let calls =
            json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        assert_eq!(
            choice["message"],
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": calls})
        );
        assert_eq!(choice["finish_reason"], "tool_calls");
    }

    #[test]
    fn a_call_that_had_to_be_is_made_of_the_text_unless_it_was_cut() {
        let form = ChatForm { forced: Some(Forced::Named("f".into())), ..ChatForm::default() };
        let choice = written(&form, generated("{\"a\": 1}"))["choices"][0].clone();
        let function = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(*function, json!({"name": "f", "arguments": "{\"a\": 1}"}));
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &json!(null))
        );
        let cut = Generated { finish_reason: FinishReason::Length, ..generated("{\"a\": ") };
        let choice = written(&form, cut)["choices"][0].clone();
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("length"), &json!("{\"a\": "))
        );
    }

    #[test]
    fn log_probabilities_come_where_they_were_asked_for() {
        let token =
            TokenLogprob { id: 1, text: "Hi".into(), bytes: None, logprob: -0.5, top: Vec::new() };
        let found = Generated { logprobs: vec![token], ..generated("Hi") };
        let form = ChatForm { has_logprobs: true, ..ChatForm::default() };
        let choice = written(&form, found.clone())["choices"][0].clone();
        assert_eq!(choice["logprobs"]["content"][0]["token"], "Hi");
        assert_eq!(written(&ChatForm::default(), found)["choices"][0]["logprobs"], json!(null));
    }
}
