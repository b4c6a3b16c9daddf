//! The words of a GGUF's vocabulary, with their types.

use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer};

use crate::error::EngineError;
use crate::load::gguf::generation::{CONTROL, USER_DEFINED, WORDS_MAX};
use crate::load::gguf::metadata::Metadata;

/// The most merges of two words.
const MERGES_MAX: usize = 1 << 22;

/// A file's words with their types.
pub(super) struct Words<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) texts: Vec<&'a str>,
    /// The type of each, which may not be there.
    kinds: Vec<i64>,
}

impl<'a> Words<'a> {
    pub(super) fn of(metadata: &'a Metadata) -> Result<Self, EngineError> {
        let texts = metadata.texts("tokenizer.ggml.tokens", WORDS_MAX)?;
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
            return Err(metadata.problem("tokenizer.ggml.tokens is missing".to_owned()));
        };
        let kinds = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        let words = texts.len();
        if !kinds.is_empty() && kinds.len() != words {
            let kinds = kinds.len();
            return Err(metadata.problem(format!(
                "tokenizer.ggml.tokens has {words} words, tokenizer.ggml.token_type {kinds}"
            )));
        }
        Ok(Self { metadata, texts, kinds })
    }

    pub(super) fn kind(&self, id: usize) -> i64 {
        self.kinds.get(id).copied().unwrap_or_default()
    }

    pub(super) fn vocabulary(&self) -> Vocab {
        self.texts.iter().zip(0..).map(|(text, id)| ((*text).to_owned(), id)).collect()
    }

    /// The merges that the file lists.
    pub(super) fn merges(&self) -> Result<Option<Merges>, EngineError> {
        let key = "tokenizer.ggml.merges";
        let Some(lines) = self.metadata.texts(key, MERGES_MAX)? else { return Ok(None) };
        let pair = |line: &&str| {
            // A word may begin with a space, so that it isn't what separates them.
            let space = line.char_indices().skip(1).find(|(_, c)| *c == ' ');
            let (at, _) = space.ok_or_else(|| {
                self.metadata.problem(format!("{key} has {line:?}, expected two words"))
            })?;
            Ok((line[..at].to_owned(), line[at + 1..].to_owned()))
        };
        lines.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }

    /// Tokens that are found in texts before anything else: control tokens, which aren't text, and the user's. One
    /// that the tokenizer knows by another spelling, as it does Gemma's spaces, is left to its merges.
    pub(super) fn added(&self, tokenizer: &Tokenizer) -> Vec<AddedToken> {
        let all = self.texts.iter().enumerate().map(|(id, text)| (id, *text, self.kind(id)));
        all.filter(|(_, text, kind)| matches!(*kind, CONTROL | USER_DEFINED) && !text.is_empty())
            .filter(|(id, text, _)| tokenizer.token_to_id(text) == Some(*id as u32))
            .map(|(_, text, kind)| AddedToken::from(text, kind == CONTROL).normalized(false))
            .collect()
    }
}
