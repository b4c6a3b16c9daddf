//! The answer as a whole.

use forebay_schemas::{FinishReason, ToolCall, Usage};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::ResponseForm;
use crate::openai::generate::{
    logprobs::ChatLogprob,
    output::{Generated, Head},
};

/// The answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseObject")]
pub struct ResponseAnswer {
    pub(super) id: String,
    #[schemars(extend("const" = "response"))]
    pub(super) object: &'static str,
    /// When it began, in seconds of Unix time.
    pub(super) created_at: u64,
    #[schemars(extend("enum" = ["in_progress", "completed", "incomplete", "failed"]))]
    pub(super) status: &'static str,
    /// Of a response that failed.
    pub(super) error: Option<Failure>,
    /// Of a response that was cut.
    pub(super) incomplete_details: Option<Incomplete>,
    /// The model that answered.
    pub(super) model: String,
    pub(super) output: Vec<Item>,
    /// Null until it has ended.
    pub(super) usage: Option<ResponseUsage>,
    /// The fields of the request that are repeated.
    #[serde(flatten)]
    pub(super) repeated: Map<String, Value>,
}

/// The error of a response.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseFailure")]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Why a response was cut.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseIncomplete")]
pub(super) struct Incomplete {
    #[schemars(extend("const" = "max_output_tokens"))]
    pub(super) reason: &'static str,
}

/// One item of an output.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ResponseItem")]
pub(super) enum Item {
    /// A text.
    Message { id: String, status: &'static str, role: &'static str, content: Vec<TextPart> },
    /// A call of a function.
    FunctionCall {
        id: String,
        status: &'static str,
        call_id: String,
        name: String,
        /// The text of a JSON object.
        arguments: String,
    },
}

/// The text of a message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseText")]
pub(super) struct TextPart {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "output_text"))]
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// There are none.
    pub(super) annotations: [(); 0],
    pub(super) logprobs: Vec<ChatLogprob>,
}

/// The tokens of a response.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "ResponseUsage")]
pub(super) struct ResponseUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "ResponseInputDetails")]
struct InputDetails {
    /// Those that were remembered, and not computed again.
    cached_tokens: u64,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "ResponseOutputDetails")]
struct OutputDetails {
    /// There are none.
    reasoning_tokens: u64,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: 0 },
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
        }
    }
}

/// The status of a text under way, and of whatever has come whole.
pub(super) const IN_PROGRESS: &str = "in_progress";
/// The status of what has come whole.
pub(super) const COMPLETED: &str = "completed";
/// The status of what was cut.
pub(super) const INCOMPLETE: &str = "incomplete";

/// A response that has just begun.
pub(super) fn begun(form: &ResponseForm, head: &Head) -> ResponseAnswer {
    ResponseAnswer {
        id: format!("resp_{}", head.id),
        object: "response",
        created_at: head.created,
        status: IN_PROGRESS,
        error: None,
        incomplete_details: None,
        model: head.model.clone(),
        output: Vec::new(),
        usage: None,
        repeated: form.repeated.clone(),
    }
}

/// A message, which is `text` as far as it has come.
pub(super) fn message(head: &Head, status: &'static str, part: Option<TextPart>) -> Item {
    let id = format!("msg_{}", head.id);
    Item::Message { id, status, role: "assistant", content: part.into_iter().collect() }
}

/// The text of a message.
pub(super) fn part(text: String, logprobs: Vec<ChatLogprob>) -> TextPart {
    TextPart { kind: "output_text", text, annotations: [], logprobs }
}

/// A call, as the item that stands `at` in an output.
pub(super) fn called(head: &Head, at: usize, call: ToolCall) -> Item {
    let ToolCall { id: call_id, name, arguments } = call;
    let id = format!("fc_{}_{at}", head.id);
    Item::FunctionCall { id, status: COMPLETED, call_id, name, arguments }
}

/// The calls of an output; a call that had to be is taken out of its text.
pub(super) fn calls(form: &ResponseForm, head: &Head, generated: &mut Generated) -> Vec<ToolCall> {
    let mut calls = std::mem::take(&mut generated.tool_calls);
    let forced = form.forced.as_ref().filter(|_| calls.is_empty());
    if let Some(call) = forced.and_then(|forced| forced.call(&generated.text, || head.call_id())) {
        generated.text.clear();
        calls.push(call);
        // It is whole, though the last token that there was room for ended it.
        generated.finish_reason = FinishReason::ToolCalls;
    }
    calls
}

/// The response at its end, with these items.
pub(super) fn ended(
    form: &ResponseForm,
    head: &Head,
    output: Vec<Item>,
    generated: &Generated,
) -> ResponseAnswer {
    let is_cut = generated.finish_reason == FinishReason::Length;
    ResponseAnswer {
        status: if is_cut { INCOMPLETE } else { COMPLETED },
        incomplete_details: is_cut.then_some(Incomplete { reason: "max_output_tokens" }),
        output,
        usage: Some(generated.usage.into()),
        ..begun(form, head)
    }
}

/// The status of a text by how its output ended.
pub(super) fn status_of(generated: &Generated) -> &'static str {
    if generated.finish_reason == FinishReason::Length { INCOMPLETE } else { COMPLETED }
}

/// The body of the answer.
pub fn answer(
    form: &ResponseForm,
    head: &Head,
    mut generated: Generated,
) -> serde_json::Result<Vec<u8>> {
    let calls = calls(form, head, &mut generated);
    let mut output = Vec::with_capacity(calls.len() + 1);
    if calls.is_empty() || !generated.text.is_empty() {
        let logprobs = std::mem::take(&mut generated.logprobs).into_iter();
        let logprobs = logprobs.map(ChatLogprob::from).collect();
        let part = part(generated.text.clone(), logprobs);
        output.push(message(head, status_of(&generated), Some(part)));
    }
    for call in calls {
        output.push(called(head, output.len(), call));
    }
    serde_json::to_vec(&ended(form, head, output, &generated))
}
