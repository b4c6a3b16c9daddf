//! The text of an output as its tokens come: never half a character, nothing that may be the beginning of a stop
//! string, and tool calls apart from what is said.

use std::sync::Arc;

use forebay_engine::{AnswerPart, Detokenizer, Picked, StopStrings, ToolCalls, Vocabulary};
use forebay_schemas::{FinishReason, JobId, Likely, TokenLogprob, ToolCall};

/// The text of an output so far.
#[derive(Debug)]
pub struct Answer {
    detokenizer: Detokenizer,
    stops: StopStrings,
    tools: Option<ToolCalls>,
    text: String,
    /// The length of the text after each token.
    lengths: Vec<usize>,
    calls: Vec<(String, String)>,
}

impl Answer {
    /// No text yet.
    pub fn new(detokenizer: Detokenizer, stops: Vec<String>, tools: Option<ToolCalls>) -> Self {
        Self {
            detokenizer,
            stops: StopStrings::new(stops),
            tools,
            text: String::new(),
            lengths: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Takes a token. Returns whether a stop string ends the text with it, where those count already.
    pub fn push(&mut self, token: u32, stops_count: bool) -> bool {
        let mut more = String::new();
        self.detokenizer.push(token, &mut more);
        let mut released = String::new();
        let is_stopped = if stops_count {
            self.stops.push(&more, &mut released).is_some()
        } else {
            self.stops.pass(&more, &mut released);
            false
        };
        self.release(&released);
        if is_stopped {
            self.finish_tools();
        }
        self.lengths.push(self.text.len());
        is_stopped
    }

    /// Takes a token that ends the output and has no text.
    pub fn end_token(&mut self) {
        self.lengths.push(self.text.len());
    }

    /// Releases what was held back, at the end. Returns why the text ends: `reason`, or a stop string that is whole
    /// only now.
    pub fn finish(&mut self, reason: FinishReason) -> FinishReason {
        let mut more = String::new();
        self.detokenizer.finish(&mut more);
        let mut released = String::new();
        let is_stopped = self.stops.push(&more, &mut released).is_some();
        if !is_stopped {
            self.stops.finish(&mut released);
        }
        self.release(&released);
        self.finish_tools();
        if let Some(last) = self.lengths.last_mut() {
            *last = self.text.len();
        }
        if is_stopped { FinishReason::Stop } else { reason }
    }

    fn release(&mut self, more: &str) {
        match &mut self.tools {
            Some(tools) => {
                let parts = tools.push(more);
                self.take_parts(parts);
            }
            None => self.text.push_str(more),
        }
    }

    fn finish_tools(&mut self) {
        if let Some(tools) = &mut self.tools {
            let parts = tools.finish();
            self.take_parts(parts);
        }
    }

    fn take_parts(&mut self, parts: Vec<AnswerPart>) {
        for part in parts {
            match part {
                AnswerPart::Text(text) => self.text.push_str(&text),
                AnswerPart::Call(call) => self.calls.push((call.name, call.arguments)),
            }
        }
    }

    /// The text that tokens from this one on released.
    pub fn text_from(&self, token: usize) -> &str {
        let start = token.checked_sub(1).and_then(|last| self.lengths.get(last)).copied();
        self.text.get(start.unwrap_or_default()..).unwrap_or_default()
    }

    /// The text and the calls. Their ids are the same on every attempt at the job.
    pub fn into_parts(self, job: &JobId) -> (String, Vec<ToolCall>) {
        let call =
            |(n, (name, arguments))| ToolCall { id: format!("call_{job}_{n}"), name, arguments };
        (self.text, self.calls.into_iter().enumerate().map(call).collect())
    }
}

/// The texts of tokens alone.
#[derive(Debug, Clone)]
pub struct Words(pub Arc<Vocabulary>);

impl Words {
    /// A token's log-probability, with the texts of all tokens in it.
    pub fn logprob(&self, picked: &Picked) -> TokenLogprob {
        let Likely { id, text, bytes, logprob } = self.likely(picked.token, picked.logprob);
        let top = picked.top.iter().map(|&(token, logprob)| self.likely(token, logprob)).collect();
        TokenLogprob { id, text, bytes, logprob, top }
    }

    fn likely(&self, id: u32, logprob: f32) -> Likely {
        let bytes = self.0.bytes(id);
        let text = String::from_utf8_lossy(bytes).into_owned();
        let is_all = text.as_bytes() == bytes;
        Likely { id, text, bytes: (!is_all).then(|| bytes.to_vec()), logprob }
    }
}
