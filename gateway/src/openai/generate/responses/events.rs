//! The answer event by event.

use forebay_schemas::{TokenChunk, TokenLogprob};
use serde_json::{Value, json};

use super::{
    ResponseForm,
    answer::{Failure, IN_PROGRESS, Item, begun, called, calls, ended, message, part, status_of},
};
use crate::{
    error::ApiError,
    openai::{
        generate::{
            held::Held,
            logprobs::ChatLogprob,
            output::{Events, Generated, Head},
        },
        sse,
    },
};

/// Writes the events of one response.
#[derive(Debug)]
pub struct ResponseEvents {
    form: ResponseForm,
    head: Head,
    held: Held,
    /// The number of the next event.
    number: u64,
    /// Log-probabilities that were written.
    logprobs: usize,
    /// The message has begun.
    has_message: bool,
}

impl ResponseEvents {
    /// The events of a response of this form.
    pub fn new(form: ResponseForm, head: Head) -> Self {
        let held = if form.forced.is_some() { Held::closed() } else { Held::new(form.has_tools) };
        Self { form, head, held, number: 0, logprobs: 0, has_message: false }
    }

    fn event(&mut self, name: &str, mut fields: Value) -> String {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.number);
        self.number += 1;
        sse::named(name, &fields)
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.head.id)
    }

    /// Some text with the log-probabilities that came with it, if there is any of either.
    fn text(&mut self, text: &str, logprobs: Vec<TokenLogprob>) -> String {
        self.logprobs += logprobs.len();
        if text.is_empty() && (logprobs.is_empty() || !self.form.has_logprobs) {
            return String::new();
        }
        let mut events = if self.has_message { String::new() } else { self.begin_message() };
        let logprobs: Vec<ChatLogprob> = logprobs.into_iter().map(ChatLogprob::from).collect();
        let fields = json!({"item_id": self.message_id(), "output_index": 0, "content_index": 0, "delta": text,
                            "logprobs": logprobs});
        events.push_str(&self.event("response.output_text.delta", fields));
        events
    }

    fn begin_message(&mut self) -> String {
        self.has_message = true;
        let item = message(&self.head, IN_PROGRESS, None);
        let added = json!({"output_index": 0, "item": item});
        let part = json!({"item_id": self.message_id(), "output_index": 0, "content_index": 0,
                          "part": part(String::new(), Vec::new())});
        self.event("response.output_item.added", added)
            + &self.event("response.content_part.added", part)
    }

    fn end_message(&mut self, item: &Item) -> String {
        let Item::Message { id, content, .. } = item else { return String::new() };
        let [part] = content.as_slice() else { return String::new() };
        let text = json!({"item_id": id, "output_index": 0, "content_index": 0, "text": part.text,
                          "logprobs": part.logprobs});
        let whole = json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part});
        let done = json!({"output_index": 0, "item": item});
        self.event("response.output_text.done", text)
            + &self.event("response.content_part.done", whole)
            + &self.event("response.output_item.done", done)
    }

    /// A call, whole.
    fn call(&mut self, at: usize, item: &Item) -> String {
        let Item::FunctionCall { id, call_id, name, arguments, .. } = item else {
            return String::new();
        };
        let begun = json!({"type": "function_call", "id": id, "status": IN_PROGRESS, "call_id": call_id, "name": name,
                           "arguments": ""});
        let added = json!({"output_index": at, "item": begun});
        let delta = json!({"item_id": id, "output_index": at, "delta": arguments});
        let whole =
            json!({"item_id": id, "output_index": at, "name": name, "arguments": arguments});
        let done = json!({"output_index": at, "item": item});
        self.event("response.output_item.added", added)
            + &self.event("response.function_call_arguments.delta", delta)
            + &self.event("response.function_call_arguments.done", whole)
            + &self.event("response.output_item.done", done)
    }
}

impl Events for ResponseEvents {
    fn begin(&mut self) -> String {
        let response = json!({"response": begun(&self.form, &self.head)});
        self.event("response.created", response.clone())
            + &self.event("response.in_progress", response)
    }

    fn tokens(&mut self, chunk: TokenChunk) -> String {
        let text = self.held.push(&chunk.text);
        self.text(&text, chunk.logprobs.unwrap_or_default())
    }

    fn end(&mut self, mut generated: Generated) -> String {
        let calls = calls(&self.form, &self.head, &mut generated);
        let rest = self.held.rest(&generated.text).to_owned();
        let written = self.logprobs.min(generated.logprobs.len());
        let rest_logprobs = generated.logprobs[written..].to_vec();
        let mut events = self.text(&rest, rest_logprobs);
        if !self.has_message && calls.is_empty() {
            events.push_str(&self.begin_message());
        }
        let mut output = Vec::with_capacity(calls.len() + 1);
        if self.has_message {
            let logprobs = std::mem::take(&mut generated.logprobs).into_iter();
            let logprobs = logprobs.map(ChatLogprob::from).collect();
            let part = part(generated.text.clone(), logprobs);
            let item = message(&self.head, status_of(&generated), Some(part));
            events.push_str(&self.end_message(&item));
            output.push(item);
        }
        for call in calls {
            let item = called(&self.head, output.len(), call);
            events.push_str(&self.call(output.len(), &item));
            output.push(item);
        }
        let response = ended(&self.form, &self.head, output, &generated);
        let name = format!("response.{}", response.status);
        events.push_str(&self.event(&name, json!({"response": response})));
        events
    }

    fn fail(&mut self, error: &ApiError) -> String {
        let mut response = begun(&self.form, &self.head);
        response.status = "failed";
        response.error = Some(Failure { code: error.code, message: error.message.clone() });
        self.event("response.failed", json!({"response": response}))
    }
}

#[cfg(test)]
mod tests;
