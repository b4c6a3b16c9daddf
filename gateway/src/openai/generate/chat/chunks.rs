//! The answer chunk by chunk.

use forebay_schemas::{TokenChunk, TokenLogprob};
use serde::Serialize;

use super::{
    ChatForm,
    answer::{Called, CalledFunction, ChunkUsage, TextUsage, id_of, parts},
};
use crate::{
    error::ApiError,
    openai::{
        generate::{
            held::Held,
            logprobs::ChatLogprobs,
            output::{Events, Generated, Head},
        },
        sse::{self, DONE},
    },
};

/// Writes the chunks of one answer.
#[derive(Debug)]
pub struct Chunks {
    form: ChatForm,
    head: Head,
    id: String,
    held: Held,
    /// Log-probabilities that were written.
    logprobs: usize,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice],
    /// In every chunk of a stream that ends with it, as null.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    delta: Delta,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// A call, which comes as a whole.
#[derive(Serialize)]
struct CallDelta {
    index: usize,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: CalledFunction,
}

impl Chunks {
    /// The chunks of an answer of this form.
    pub fn new(form: ChatForm, head: Head) -> Self {
        let id = id_of(&head);
        let held = if form.forced.is_some() { Held::closed() } else { Held::new(form.has_tools) };
        Self { form, head, id, held, logprobs: 0 }
    }

    fn chunk(&self, choices: &[Choice], usage: Option<TextUsage>) -> String {
        sse::event(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            choices,
            usage: self.form.streaming.include_usage.then(|| ChunkUsage::of(usage)),
        })
    }

    fn delta(
        &self,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> String {
        self.chunk(&[Choice { index: 0, delta, logprobs, finish_reason }], None)
    }

    /// The chunk of some text with the log-probabilities that came with it, if there is any of either.
    fn text(&mut self, text: String, logprobs: Vec<TokenLogprob>) -> String {
        self.logprobs += logprobs.len();
        let logprobs = Some(logprobs).filter(|list| self.form.has_logprobs && !list.is_empty());
        if text.is_empty() && logprobs.is_none() {
            return String::new();
        }
        let delta = Delta { content: Some(text), ..Delta::default() };
        self.delta(delta, logprobs.map(ChatLogprobs::of), None)
    }
}

impl Events for Chunks {
    fn begin(&mut self) -> String {
        let content = Some(String::new());
        self.delta(Delta { role: Some("assistant"), content, ..Delta::default() }, None, None)
    }

    fn tokens(&mut self, chunk: TokenChunk) -> String {
        let text = self.held.push(&chunk.text);
        self.text(text, chunk.logprobs.unwrap_or_default())
    }

    fn end(&mut self, mut generated: Generated) -> String {
        let (calls, finish_reason) = parts(&self.form, &self.head, &mut generated);
        let rest = self.held.rest(&generated.text).to_owned();
        let written = self.logprobs.min(generated.logprobs.len());
        let mut events = self.text(rest, generated.logprobs.split_off(written));
        for (index, Called { id, kind, function }) in calls.into_iter().enumerate() {
            let call = CallDelta { index, id, kind, function };
            let delta = Delta { tool_calls: vec![call], ..Delta::default() };
            events.push_str(&self.delta(delta, None, None));
        }
        events.push_str(&self.delta(Delta::default(), None, Some(finish_reason)));
        if self.form.streaming.include_usage {
            events.push_str(&self.chunk(&[], Some(generated.usage.into())));
        }
        events.push_str(DONE);
        events
    }

    fn fail(&mut self, error: &ApiError) -> String {
        sse::of_error(error)
    }
}

#[cfg(test)]
mod tests;
