//! Log-probabilities of tokens, as OpenAI's interfaces write them.

use forebay_schemas::{Likely, TokenLogprob};
use schemars::JsonSchema;
use serde::Serialize;

/// Stands for the logarithm of 0, which JSON has no number for.
const NEVER: f32 = -9_999.0;

/// The log-probabilities of an answer's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ChatLogprobs")]
pub struct ChatLogprobs {
    /// Those of the text.
    pub content: Vec<ChatLogprob>,
    /// There are none of a refusal.
    pub refusal: Option<()>,
}

/// The log-probability of one token.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ChatLogprob {
    /// The token and how likely it was.
    #[serde(flatten)]
    pub token: Alternative,
    /// The likeliest tokens in its position, the likeliest first.
    pub top_logprobs: Vec<Alternative>,
}

/// A token and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "TokenAlternative")]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// The logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl From<Likely> for Alternative {
    fn from(likely: Likely) -> Self {
        let Likely { text, bytes, logprob, .. } = likely;
        let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
        Self { token: text, logprob: finite(logprob), bytes }
    }
}

impl From<TokenLogprob> for ChatLogprob {
    fn from(logprob: TokenLogprob) -> Self {
        let TokenLogprob { id, text, bytes, logprob, top } = logprob;
        let top_logprobs = top.into_iter().map(Alternative::from).collect();
        Self { token: Likely { id, text, bytes, logprob }.into(), top_logprobs }
    }
}

impl ChatLogprobs {
    /// Of these tokens.
    pub fn of(tokens: Vec<TokenLogprob>) -> Self {
        Self { content: tokens.into_iter().map(ChatLogprob::from).collect(), refusal: None }
    }
}

/// The log-probabilities of a completion's tokens, each list in the tokens' order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "CompletionLogprobs")]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// How likely each was.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens in each position.
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Of these tokens, of which the first begins after `offset` characters.
    pub fn of(tokens: Vec<TokenLogprob>, mut offset: usize) -> Self {
        let mut lists = Self::default();
        for TokenLogprob { text, logprob, top, .. } in tokens {
            let top = top.into_iter().map(|likely| (likely.text, finite(likely.logprob).into()));
            lists.top_logprobs.push(top.collect());
            lists.token_logprobs.push(finite(logprob));
            lists.text_offset.push(offset);
            offset += text.chars().count();
            lists.tokens.push(text);
        }
        lists
    }

    /// Where the token after the last begins, in characters.
    pub fn end(&self) -> usize {
        let last = self.text_offset.last().zip(self.tokens.last());
        last.map_or(0, |(offset, token)| offset + token.chars().count())
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn likely(text: &str, logprob: f32) -> Likely {
        Likely { id: 7, text: text.into(), bytes: None, logprob }
    }

    fn tokens() -> Vec<TokenLogprob> {
        let token = |text: &str, bytes, logprob, top| TokenLogprob {
            id: 7,
            text: text.into(),
            bytes,
            logprob,
            top,
        };
        vec![
            token("é", None, -0.5, vec![likely("a", -0.25), likely("é", -0.5)]),
            token("\u{fffd}", Some(vec![0xe2, 0x82]), -1.5, vec![likely("b", f32::NEG_INFINITY)]),
        ]
    }

    fn alternative(token: &str, logprob: f64, bytes: &[u8]) -> serde_json::Value {
        json!({"token": token, "logprob": logprob, "bytes": bytes})
    }

    #[test]
    fn chat_has_a_list_of_tokens_with_their_bytes() {
        let written = serde_json::to_value(ChatLogprobs::of(tokens())).unwrap();
        let mut first = alternative("é", -0.5, &[0xc3, 0xa9]);
        first["top_logprobs"] =
            json!([alternative("a", -0.25, b"a"), alternative("é", -0.5, &[0xc3, 0xa9])]);
        let mut second = alternative("\u{fffd}", -1.5, &[0xe2, 0x82]);
        second["top_logprobs"] = json!([alternative("b", -9_999.0, b"b")]);
        assert_eq!(written, json!({"content": [first, second], "refusal": null}));
    }

    #[test]
    fn completions_have_lists_that_go_together() {
        let lists = CompletionLogprobs::of(tokens(), 10);
        assert_eq!(lists.text_offset, [10, 11]);
        assert_eq!(lists.end(), 12);
        assert_eq!(CompletionLogprobs::default().end(), 0);
        let written = serde_json::to_value(lists).unwrap();
        assert_eq!(written["tokens"], json!(["é", "\u{fffd}"]));
        assert_eq!(written["token_logprobs"], json!([-0.5, -1.5]));
        assert_eq!(written["top_logprobs"], json!([{"a": -0.25, "é": -0.5}, {"b": -9_999.0}]));
    }
}
