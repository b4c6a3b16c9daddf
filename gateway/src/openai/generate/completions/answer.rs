//! The answer, as a whole and chunk by chunk.

use forebay_schemas::{FinishReason, TokenChunk, TokenLogprob, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use super::CompletionForm;
use crate::{
    error::ApiError,
    openai::{
        generate::{
            chat::{ChunkUsage, TextUsage},
            held::Held,
            logprobs::CompletionLogprobs,
            output::{Events, Generated, Head},
        },
        sse::{self, DONE},
    },
};

/// The answer, or a chunk of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Completion")]
pub struct CompletionAnswer {
    id: String,
    #[schemars(extend("const" = "text_completion"))]
    object: &'static str,
    /// When the answer began, in seconds of Unix time.
    created: u64,
    /// The model that answered.
    model: String,
    /// One for each prompt, in their order.
    choices: Vec<Choice>,
    /// The tokens of all prompts and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TextUsage", required)]
    usage: Option<ChunkUsage>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CompletionChoice")]
struct Choice {
    /// The prompt's position.
    index: usize,
    text: String,
    /// Null unless they were asked for.
    logprobs: Option<CompletionLogprobs>,
    #[schemars(extend("enum" = ["stop", "length", null]))]
    finish_reason: Option<&'static str>,
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::ToolCalls => "stop",
    }
}

fn written(head: &Head, choices: Vec<Choice>, usage: Option<ChunkUsage>) -> CompletionAnswer {
    let Head { id, model, created } = head.clone();
    let id = format!("cmpl-{id}");
    CompletionAnswer { id, object: "text_completion", created, model, choices, usage }
}

/// The body of the answer to as many prompts as there are outputs.
pub fn answer(
    form: CompletionForm,
    head: &Head,
    generated: Vec<Generated>,
) -> serde_json::Result<Vec<u8>> {
    let usage = sum(generated.iter().map(|generated| generated.usage));
    let choices = generated.into_iter().enumerate().map(|(index, generated)| {
        let logprobs = form.has_logprobs.then(|| CompletionLogprobs::of(generated.logprobs, 0));
        let finish_reason = Some(reason(generated.finish_reason));
        Choice { index, text: generated.text, logprobs, finish_reason }
    });
    serde_json::to_vec(&written(head, choices.collect(), Some(ChunkUsage::Known(usage.into()))))
}

/// The tokens of several outputs.
pub fn sum(usages: impl IntoIterator<Item = Usage>) -> Usage {
    usages.into_iter().fold(Usage::default(), |mut sum, usage| {
        sum.input_tokens += usage.input_tokens;
        sum.output_tokens += usage.output_tokens;
        sum.cached_tokens += usage.cached_tokens;
        sum
    })
}

/// Writes the chunks of one answer.
#[derive(Debug)]
pub struct Chunks {
    form: CompletionForm,
    head: Head,
    held: Held,
    /// Log-probabilities that were written.
    logprobs: usize,
    /// Where the next token begins in the text, in characters.
    offset: usize,
}

impl Chunks {
    /// The chunks of an answer of this form.
    pub fn new(form: CompletionForm, head: Head) -> Self {
        Self { form, head, held: Held::new(false), logprobs: 0, offset: 0 }
    }

    fn chunk(&self, choices: Vec<Choice>, usage: Option<TextUsage>) -> String {
        let usage = self.form.streaming.include_usage.then(|| ChunkUsage::of(usage));
        sse::event(&written(&self.head, choices, usage))
    }

    fn text(
        &mut self,
        text: String,
        logprobs: Vec<TokenLogprob>,
        finish_reason: Option<&'static str>,
    ) -> String {
        self.logprobs += logprobs.len();
        let logprobs = Some(logprobs).filter(|list| self.form.has_logprobs && !list.is_empty());
        if text.is_empty() && logprobs.is_none() && finish_reason.is_none() {
            return String::new();
        }
        let logprobs = logprobs.map(|list| CompletionLogprobs::of(list, self.offset));
        self.offset = logprobs.as_ref().map_or(self.offset, CompletionLogprobs::end);
        self.chunk(vec![Choice { index: 0, text, logprobs, finish_reason }], None)
    }
}

impl Events for Chunks {
    fn begin(&mut self) -> String {
        String::new()
    }

    fn tokens(&mut self, chunk: TokenChunk) -> String {
        let text = self.held.push(&chunk.text);
        self.text(text, chunk.logprobs.unwrap_or_default(), None)
    }

    fn end(&mut self, mut generated: Generated) -> String {
        let rest = self.held.rest(&generated.text).to_owned();
        let written = self.logprobs.min(generated.logprobs.len());
        let logprobs = generated.logprobs.split_off(written);
        let mut events = self.text(rest, logprobs, Some(reason(generated.finish_reason)));
        if self.form.streaming.include_usage {
            events.push_str(&self.chunk(Vec::new(), Some(generated.usage.into())));
        }
        events.push_str(DONE);
        events
    }

    fn fail(&mut self, error: &ApiError) -> String {
        sse::of_error(error)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::generate::output::Streaming;

    fn head() -> Head {
        Head { id: "j1".into(), model: "m".into(), created: 9 }
    }

    fn generated(text: &str) -> Generated {
        let usage = Usage { input_tokens: 2, output_tokens: 1, ..Usage::default() };
        let logprob = |text: &str| TokenLogprob {
            id: 1,
            text: text.into(),
            bytes: None,
            logprob: -0.5,
            top: Vec::new(),
        };
        let logprobs = text.split_inclusive(' ').map(logprob);
        let finish_reason = FinishReason::Length;
        Generated {
            text: text.into(),
            finish_reason,
            tool_calls: Vec::new(),
            logprobs: logprobs.collect(),
            usage,
        }
    }

    #[test]
    fn an_answer_has_a_choice_for_each_prompt_and_the_tokens_of_all() {
        let both = vec![generated("a b"), generated("c")];
        let bytes = answer(CompletionForm::default(), &head(), both).unwrap();
        let expected = json!({
            "id": "cmpl-j1", "object": "text_completion", "created": 9, "model": "m",
            "choices": [{"index": 0, "text": "a b", "logprobs": null, "finish_reason": "length"},
                        {"index": 1, "text": "c", "logprobs": null, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6,
                      "prompt_tokens_details": {"cached_tokens": 0}},
        });
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
    }

    #[test]
    fn chunks_have_the_text_once_and_offsets_that_go_on() {
        let streaming = Streaming { is_on: true, include_usage: true };
        let mut chunks = Chunks::new(CompletionForm { streaming, has_logprobs: true }, head());
        assert_eq!(chunks.begin(), "");
        let whole = generated("é b c");
        let first = TokenChunk {
            at: 0,
            ids: vec![1],
            text: "é ".into(),
            logprobs: Some(whole.logprobs[..1].to_vec()),
        };
        let events = chunks.tokens(first) + &chunks.end(whole);
        let data: Vec<Value> = events
            .split("\n\n")
            .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
            .collect();
        let choice = |at: usize| &data[at]["choices"][0];
        assert_eq!((&choice(0)["text"], &choice(0)["finish_reason"]), (&json!("é "), &Value::Null));
        assert_eq!(
            (&choice(1)["text"], &choice(1)["finish_reason"]),
            (&json!("b c"), &json!("length"))
        );
        assert_eq!(choice(1)["logprobs"]["text_offset"], json!([2, 4]));
        assert_eq!(
            (&data[2]["choices"], &data[2]["usage"]["total_tokens"]),
            (&json!([]), &json!(3))
        );
        assert_eq!(data[0].get("usage"), Some(&Value::Null));
        assert!(events.ends_with(DONE));
    }
}
