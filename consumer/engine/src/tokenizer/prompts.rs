//! The tokenizer of a model that generates text: prompts are taken whole or not at all.

use std::path::Path;

use tokenizers::TruncationDirection;

use crate::error::EngineError;
use crate::load::files::read;
use crate::tokenizer::{PART_BYTES_MAX, Tokenizer, contained, library};

impl Tokenizer {
    /// The library's tokenizer in a `tokenizer.json`.
    pub(crate) fn library_of(path: &Path) -> Result<tokenizers::Tokenizer, EngineError> {
        let bytes = read(path)?;
        contained(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(|problem| {
            EngineError::Tokenizer { problem: format!("{}: {problem}", path.display()) }
        })
    }

    /// A tokenizer of prompts of up to `tokens_max` tokens. Truncation and padding that it asks for itself are dropped.
    pub(crate) fn of_library(
        mut inner: tokenizers::Tokenizer,
        tokens_max: usize,
    ) -> Result<Self, EngineError> {
        inner.with_padding(None);
        library(|| inner.with_truncation(None).map(|_| ()))?;
        Ok(Self {
            inner,
            fast: None,
            tokens_max,
            cut_off: TruncationDirection::Right,
            gives_types: false,
            beginnings: None,
            prompt: String::new(),
            queries: None,
            filler: None,
            pair_prompt: None,
        })
    }

    /// The tokens of a whole prompt; names of special tokens within it are those tokens. `adds_special` puts around it
    /// what the model's tokenizer puts around texts, such as a first token: a chat template has written that already.
    pub fn encode_prompt(&self, text: &str, adds_special: bool) -> Result<Vec<u32>, EngineError> {
        if text.len() > PART_BYTES_MAX {
            return Err(EngineError::TextTooLarge { bytes: text.len(), bytes_max: PART_BYTES_MAX });
        }
        let tokens = library(|| self.inner.encode_fast(text, adds_special))?;
        Ok(tokens.get_ids().to_vec())
    }
}
