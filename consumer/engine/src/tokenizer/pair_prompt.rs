//! Pairs that a model reads as one prompt, with words around both texts.

use crate::error::EngineError;
use crate::tokenizer::{PairPrompt, Tokenizer, Tokens, WritePrompt, library};

/// Texts of prompts that are compared: no tokenizer ends them alike.
const FILLERS: [&str; 2] = ["0", "1 2 3 4"];

impl Tokenizer {
    /// A tokenizer whose pairs are put into a prompt. With `keeps_closing` the tokens behind both texts stay where it
    /// is cut.
    pub(crate) fn with_pair_prompt(
        mut self,
        write: Box<WritePrompt>,
        keeps_closing: bool,
    ) -> Result<Self, EngineError> {
        let closing = if keeps_closing { self.closing_of(&write)? } else { Vec::new() };
        self.pair_prompt = Some(PairPrompt { write, closing });
        Ok(self)
    }

    /// The prompt of two texts, where the model reads pairs so.
    pub(crate) fn pair_prompt(
        &self,
        query: &str,
        document: &str,
    ) -> Result<Option<String>, EngineError> {
        self.pair_prompt.as_ref().map(|prompt| (prompt.write)(query, document)).transpose()
    }

    /// The tokens that prompts end in, whatever their texts.
    fn closing_of(&self, write: &WritePrompt) -> Result<Vec<u32>, EngineError> {
        let [one, other] = FILLERS.map(|filler| {
            let prompt = write(filler, filler)?;
            Ok::<_, EngineError>(
                library(|| self.inner.encode_fast(prompt, false))?.get_ids().to_vec(),
            )
        });
        let [one, other] = [one?, other?];
        let equal = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
        // Prompts that are equal have neither text.
        let is_end = equal < one.len().min(other.len());
        Ok(if is_end { one[one.len() - equal..].to_vec() } else { Vec::new() })
    }

    /// The tokens of a pair in its prompt, cut at the model's length.
    pub(super) fn encode_prompted(
        &self,
        prompt: &PairPrompt,
        query: &str,
        document: &str,
    ) -> Result<Tokens, EngineError> {
        let text = (prompt.write)(query, document)?;
        let enough = if self.keeps_end() { usize::MAX } else { self.tokens_max + 1 };
        let mut ids = self.first_tokens(&text, enough)?.get_ids().to_vec();
        let truncated = ids.len() > self.tokens_max;
        if truncated && self.keeps_end() {
            ids.drain(..ids.len() - self.tokens_max);
        } else if truncated {
            let closing = prompt.closing.len().min(self.tokens_max);
            ids.truncate(self.tokens_max - closing);
            ids.extend_from_slice(&prompt.closing[prompt.closing.len() - closing..]);
        }
        Ok(Tokens { first_len: ids.len(), ids, truncated })
    }
}
