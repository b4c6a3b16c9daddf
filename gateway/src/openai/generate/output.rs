//! The output of a job that generated text, and how an interface writes it.

use forebay_schemas::{
    FinishReason, GenerateParams, Outcome, Output, Prompt, TokenChunk, TokenLogprob, ToolCall,
    Usage,
};

use crate::{error::ApiError, fields::Fields};

/// A request for text, by whichever interface it came.
#[derive(Debug, Clone, PartialEq)]
pub struct TextRequest {
    /// The model as the client named it.
    pub model: Option<String>,
    /// The prompts; one unless it is a list of completions.
    pub prompts: Vec<Prompt>,
    /// How they are continued.
    pub params: GenerateParams,
}

/// The text that a job generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The tools that the model called.
    pub tool_calls: Vec<ToolCall>,
    /// The tokens' log-probabilities, if they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The tokens that it took.
    pub usage: Usage,
}

impl Generated {
    /// The text of a record, if it has one.
    pub fn of(outcome: Outcome) -> Option<Self> {
        let Some(Output::Generate { text, finish_reason, tool_calls, logprobs, .. }) =
            outcome.output
        else {
            return None;
        };
        let logprobs = logprobs.unwrap_or_default();
        Some(Self { text, finish_reason, tool_calls, logprobs, usage: outcome.usage })
    }
}

/// Names of an answer that all its parts repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The job's id, of which the answer's own is made.
    pub id: String,
    /// The model that answers.
    pub model: String,
    /// When the answer began, in seconds of Unix time.
    pub created: u64,
}

/// Writes the answer of one interface event by event, in the form of server-sent events. Each part may be empty.
pub trait Events: Send {
    /// The events before anything is known.
    fn begin(&mut self) -> String;
    /// Those of tokens that came.
    fn tokens(&mut self, chunk: TokenChunk) -> String;
    /// Those of the end, with all that did not come before.
    fn end(&mut self, generated: Generated) -> String;
    /// Those of an end that is an error.
    fn fail(&mut self, error: &ApiError) -> String;
}

/// Whether an answer comes event by event, and whether its usage does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streaming {
    /// It comes event by event.
    pub is_on: bool,
    /// It ends with the tokens that it took.
    pub include_usage: bool,
}

impl Streaming {
    /// Reads `stream` and `stream_options`.
    pub fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        const OPTIONS: &str = "stream_options";
        let is_on = fields.flag("stream")?.unwrap_or(false);
        let Some(raw) = fields.raw(OPTIONS) else {
            return Ok(Self { is_on, include_usage: false });
        };
        let options = super::messages::object(OPTIONS, raw, &["include_usage"])?;
        let include_usage = options.flag("include_usage").map_err(|error| error.at(OPTIONS))?;
        Ok(Self { is_on, include_usage: include_usage.unwrap_or(false) })
    }
}

/// The options of a stream.
#[derive(schemars::JsonSchema)]
pub struct StreamOptions {
    /// A last chunk has the tokens that the answer took.
    pub include_usage: Option<bool>,
}

/// Refuses fields that would change the answer and are not supported.
pub fn refuse(fields: &Fields<'_>, names: &[&'static str]) -> Result<(), ApiError> {
    match names.iter().find(|name| fields.raw(name).is_some()) {
        Some(name) => {
            Err(ApiError::invalid(*name, format!("`{name}` is not supported: leave it out")))
        }
        None => Ok(()),
    }
}

/// Refuses more than one answer to a prompt, in a field that counts them.
pub fn one_answer(fields: &Fields<'_>, name: &'static str) -> Result<(), ApiError> {
    match fields.count(name)? {
        None | Some(1) => Ok(()),
        Some(count) => {
            let message = format!(
                "`{name}` is {count}: one answer comes to each request; send it again for another"
            );
            Err(ApiError::invalid(name, message))
        }
    }
}

impl Head {
    /// The id of a call that the gateway makes of the text.
    pub fn call_id(&self) -> String {
        format!("call_{}", self.id)
    }
}
