//! Sequences that come as token ids: the model's own, special tokens included.

use crate::error::EngineError;

use super::{Tokenizer, Tokens, library};

impl Tokenizer {
    /// A sequence of the model's own token ids as the model reads it: as it came, or cut at the model's length with
    /// its special tokens kept, just as a text's tokens are. Whether each id is one of the model's is the caller's to
    /// check.
    pub fn cut_ids(&self, mut ids: Vec<u32>) -> Result<Tokens, EngineError> {
        let truncated = ids.len() > self.tokens_max;
        if truncated {
            let (opening, closing) = self.specials()?;
            let over = ids.len() - self.tokens_max;
            if self.keeps_end() {
                let kept = if ids.starts_with(&opening) { opening.len() } else { 0 };
                ids.drain(kept..kept + over);
            } else {
                let kept = if ids.ends_with(&closing) { closing.len() } else { 0 };
                let end = ids.len() - kept;
                ids.drain(end - over..end);
            }
        }
        Ok(Tokens { first_len: ids.len(), ids, truncated })
    }

    /// As [`Self::cut_ids`], or [`EngineError::InputTooLong`] when the model cannot read all of them.
    pub fn whole_ids(&self, ids: Vec<u32>) -> Result<Tokens, EngineError> {
        if ids.len() > self.tokens_max {
            return Err(EngineError::InputTooLong { tokens_max: self.tokens_max });
        }
        self.cut_ids(ids)
    }

    /// Whether a text ends in a special token.
    pub(crate) fn closes(&self) -> Result<bool, EngineError> {
        Ok(!self.specials()?.1.is_empty())
    }

    /// The special tokens that go before and after the tokens of a text.
    fn specials(&self) -> Result<(Vec<u32>, Vec<u32>), EngineError> {
        if let Some(fast) = &self.fast {
            return Ok((fast.opening.clone(), fast.closing.clone()));
        }
        // Any word: only what the template puts around it counts.
        let whole = library(|| self.inner.encode_fast("water", true))?;
        let mask = whole.get_special_tokens_mask();
        let opening = mask.iter().take_while(|&&special| special == 1).count();
        let closing = mask.iter().rev().take_while(|&&special| special == 1).count();
        let ids = whole.get_ids();
        let closing = closing.min(ids.len() - opening);
        Ok((ids[..opening].to_vec(), ids[ids.len() - closing..].to_vec()))
    }
}
