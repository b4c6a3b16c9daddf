//! Generation: the prompt that is continued or answered, how it is sampled, and the parts of its output.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json::Json;

/// The start of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text that is continued.
    Text(String),
    /// A conversation that is answered.
    Messages(Vec<Message>),
}

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant` or `tool`, or whatever else the model's template knows.
    pub role: String,
    /// The text of the turn.
    pub content: String,
    /// The tools that the assistant called in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's turn answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name, or that of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A turn that is text alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// A tool that a model called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// The call's id, by which the tool's turn answers it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON text.
    pub arguments: String,
}

/// How text is sampled. An absent parameter is left to the model's own default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerateParams {
    /// Stop after this many tokens.
    pub max_tokens: Option<u32>,
    /// Don't end before this many tokens.
    pub min_tokens: Option<u32>,
    /// 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Sample from the likeliest tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Sample from this many of the likeliest tokens.
    pub top_k: Option<u32>,
    /// Sample from tokens that have at least this share of the likeliest token's probability.
    pub min_p: Option<f32>,
    /// Taken off the logit of each token that the output has.
    pub presence_penalty: Option<f32>,
    /// Taken off the logit of each token for each time that the output has it.
    pub frequency_penalty: Option<f32>,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that prompt or output have.
    pub repetition_penalty: Option<f32>,
    /// Added to the logits of these token ids.
    pub logit_bias: BTreeMap<u32, f32>,
    /// End where one of these begins.
    pub stop: Vec<String>,
    /// End at one of these token ids, beside the model's own ends.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's own ends.
    pub ignore_eos: bool,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
    /// Return each token's log-probability, beside those of this many of the likeliest tokens.
    pub logprobs: Option<u32>,
    /// Return the output's token ids.
    pub return_token_ids: bool,
    /// The text that may be written.
    pub response_format: Option<ResponseFormat>,
    /// The tools that the model may call, as its template takes them.
    pub tools: Vec<Json>,
    /// Write tokens to the job's token stream as they come.
    pub stream: bool,
}

/// A format that the whole text of an output has to fit: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// JSON that keeps to this JSON Schema.
    JsonSchema(Json),
    /// Text that this regular expression matches whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a `stop` came.
    Stop,
    /// It has `max_tokens` tokens, or as many as the model reads.
    Length,
    /// The model called tools.
    ToolCalls,
}

impl FinishReason {
    /// The reason's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token of an output and how likely it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// Its id.
    pub id: u32,
    /// Its text; bytes that are no whole character are replaced.
    pub text: String,
    /// Its bytes, where its text is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// The logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at this position, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Likely>,
}

/// A token and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Likely {
    /// Its id.
    pub id: u32,
    /// Its text; bytes that are no whole character are replaced.
    pub text: String,
    /// Its bytes, where its text is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// The logarithm of its probability.
    pub logprob: f32,
}
