//! A job's token stream: what a running generation has written so far.
//!
//! Entries follow each other without gaps or overlaps: the stream's writer appends at its end alone. So the id of an
//! entry in Redis is the number of tokens up to its end, and a reader that has `n` tokens goes on from there.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError, ContentType},
    generate::TokenLogprob,
};

/// An entry of a token stream is no deeper than a list of log-probabilities.
const DEPTH_MAX: usize = 8;

/// The most entries of a token stream; the oldest go first. Each has at least one token, so no output of fewer tokens
/// ever loses one.
pub const TOKEN_CHUNKS_MAX: usize = 65_536;
/// How long a token stream outlives its last entry, in seconds: a job that lost its worker is found again within a day.
pub const TOKENS_TTL_S: u64 = 86_400;
/// How long a token stream outlives its job's result, in seconds.
pub const TOKENS_AFTER_RESULT_TTL_S: u64 = 600;
/// The channel of token notices is called like the job's `notify` channel with this at its end. The job's id is
/// published there after each entry.
pub const TOKENS_CHANNEL_SUFFIX: &str = ":tokens";

/// An entry of a job's token stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenChunk {
    /// How many tokens came before.
    pub at: u32,
    /// The tokens.
    pub ids: Vec<u32>,
    /// The text that they released: whole characters, and none that may begin a `stop`. It may be empty, and the last
    /// entry's may be longer than its tokens' text.
    pub text: String,
    /// The tokens' log-probabilities, if the job asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
}

impl TokenChunk {
    /// How many tokens there are up to its end.
    pub fn next(&self) -> u32 {
        self.at.saturating_add(u32::try_from(self.ids.len()).unwrap_or(u32::MAX))
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, ContentType::Msgpack)
    }

    /// Reads an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, ContentType::Msgpack, DEPTH_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Likely;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let top = vec![Likely { id: 9, text: "é".into(), bytes: None, logprob: -0.5 }];
        let bytes = Some(vec![0xe2, 0x82]);
        let logprob = TokenLogprob { id: 7, text: "\u{fffd}".into(), bytes, logprob: -0.125, top };
        for logprobs in [None, Some(vec![logprob])] {
            let chunk = TokenChunk { at: 3, ids: vec![7], text: "é".into(), logprobs };
            assert_eq!(TokenChunk::decode(&chunk.encode().unwrap()).unwrap(), chunk);
            assert_eq!(chunk.next(), 4);
        }
    }
}
