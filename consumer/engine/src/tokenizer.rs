//! Texts to token ids: one text on the calling thread, cut to the model's length with its closing tokens kept.

use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};

use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    Encoding, NormalizerWrapper, PostProcessor, PreTokenizerWrapper, TruncationParams,
};

use crate::EngineError;
use crate::folder::{ModelFolder, read};

/// Bytes of text tried first for each token that is kept. English WordPiece runs near 4 bytes a token, so
/// one try nearly always fills the model; the tries grow fourfold.
const PREFIX_BYTES_PER_TOKEN: usize = 16;

/// A text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids with the model's special tokens around them.
    pub ids: Vec<u32>,
    /// How many of them are of the first text: all of them, unless they are of a pair.
    pub first_len: usize,
    /// True when the text was longer than the model reads and its end was cut off.
    pub truncated: bool,
}

/// A model's tokenizer. Threads may share it.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    tokens_max: usize,
    lower_case: bool,
    splits_at_spaces: bool,
    /// What goes before every text but those of a pair.
    prompt: String,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. Truncation and padding that the file itself asks for are dropped: batches are
    /// never padded, and the length is the model's.
    pub(crate) fn load(folder: &ModelFolder, tokens_max: usize) -> Result<Self, EngineError> {
        let path = folder.tokenizer_path();
        let invalid = |problem: String| EngineError::Tokenizer {
            problem: format!("{}: {problem}", path.display()),
        };
        let bytes = read(&path)?;
        let mut inner =
            contained(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(&invalid)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        let specials = contained(|| inner.encode_fast("", true)).map_err(&invalid)?.len();
        if specials >= tokens_max {
            return Err(invalid(format!(
                "{specials} special tokens leave no room in {tokens_max} tokens"
            )));
        }
        let splits_at_spaces = splits_at_spaces(&inner);
        let (lower_case, prompt) =
            (folder.lower_cases(), folder.default_prompt().unwrap_or_default().to_owned());
        Ok(Self { inner, tokens_max, lower_case, splits_at_spaces, prompt })
    }

    /// The most tokens that [`Self::encode`] returns.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// The text's tokens, cut at the model's length: the first tokens and the closing special tokens stay.
    /// The model's default prompt, where it has one, goes before the text.
    pub fn encode(&self, text: &str) -> Result<Tokens, EngineError> {
        let text = &*self.prompted(text);
        let mut bytes = self.tokens_max.saturating_mul(PREFIX_BYTES_PER_TOKEN);
        loop {
            let prefix = if self.splits_at_spaces { prefix_at_space(text, bytes) } else { text };
            let tokens = self.encode_cut(prefix)?;
            if tokens.truncated || prefix.len() == text.len() {
                return Ok(tokens);
            }
            bytes = bytes.saturating_mul(4);
        }
    }

    /// The text's tokens, or [`EngineError::InputTooLong`] when the model cannot read all of them.
    pub fn encode_untruncated(&self, text: &str) -> Result<Tokens, EngineError> {
        let ids = self.encoding(&self.prompted(text))?.get_ids().to_vec();
        if ids.len() > self.tokens_max {
            return Err(EngineError::InputTooLong {
                tokens: ids.len(),
                tokens_max: self.tokens_max,
            });
        }
        Ok(Tokens { first_len: ids.len(), ids, truncated: false })
    }

    /// The tokens of two texts, as the model reads a pair; too many are cut off one by one from the longer text's end.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Tokens, EngineError> {
        let (first, second) = (self.beginning(first)?, self.beginning(second)?);
        let specials = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        let tokens_max = self.tokens_max.saturating_sub(specials);
        let truncated = first.len() + second.len() > tokens_max;
        contained(|| {
            let cut = TruncationParams { max_length: tokens_max, ..TruncationParams::default() };
            let (first, second) = truncate_encodings(first, Some(second), &cut)?;
            let pair = self.inner.post_process(first, second, true)?;
            let first_len = pair.get_type_ids().iter().take_while(|&&id| id == 0).count();
            Ok(Tokens { ids: pair.get_ids().to_vec(), first_len, truncated })
        })
        .map_err(|problem| EngineError::Tokenizer { problem })
    }

    /// The first tokens of a text without special ones: as many as the model reads, or more.
    fn beginning(&self, text: &str) -> Result<Encoding, EngineError> {
        let mut bytes = self.tokens_max.saturating_mul(PREFIX_BYTES_PER_TOKEN);
        loop {
            let prefix = if self.splits_at_spaces { prefix_at_space(text, bytes) } else { text };
            let encoding = self.encoding_of(prefix, false)?;
            if encoding.len() >= self.tokens_max || prefix.len() == text.len() {
                return Ok(encoding);
            }
            bytes = bytes.saturating_mul(4);
        }
    }

    fn prompted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.prompt.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(format!("{}{text}", self.prompt))
        }
    }

    fn encode_cut(&self, text: &str) -> Result<Tokens, EngineError> {
        let encoding = self.encoding(text)?;
        let ids = encoding.get_ids();
        if ids.len() <= self.tokens_max {
            return Ok(Tokens { ids: ids.to_vec(), first_len: ids.len(), truncated: false });
        }
        // Only tokens that the template added are masked: a "[SEP]" written in the text is not.
        let closing = encoding
            .get_special_tokens_mask()
            .iter()
            .rev()
            .take_while(|&&special| special == 1)
            .count();
        let (head, tail) = (&ids[..self.tokens_max - closing], &ids[ids.len() - closing..]);
        Ok(Tokens { ids: [head, tail].concat(), first_len: self.tokens_max, truncated: true })
    }

    fn encoding(&self, text: &str) -> Result<Encoding, EngineError> {
        self.encoding_of(text, true)
    }

    fn encoding_of(&self, text: &str, specials: bool) -> Result<Encoding, EngineError> {
        let text =
            if self.lower_case { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) };
        contained(|| self.inner.encode_fast(text, specials))
            .map_err(|problem| EngineError::Tokenizer { problem })
    }
}

/// Runs a part of the tokenizers library, which panics at some files and texts where it could have said
/// what is wrong. Nothing that it was building is used afterwards.
fn contained<T>(part: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(part)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library can't cope with it".to_owned()),
    }
}

/// True when the tokens of a text cut before a space are the first tokens of the whole text, so that a
/// megabyte need not be tokenized to keep 256 tokens. BERT's own pipeline is such: its normaliser looks at
/// one character and its combining marks, its words end at spaces, and no special token reaches over one.
fn splits_at_spaces(tokenizer: &tokenizers::Tokenizer) -> bool {
    let reaches_over_spaces = |token: &tokenizers::AddedToken| {
        token.lstrip
            || token.rstrip
            || token.single_word
            || token.content.contains(char::is_whitespace)
    };
    matches!(tokenizer.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && !tokenizer.get_added_tokens_decoder().values().any(reaches_over_spaces)
}

/// The text up to its first ASCII space at or after `bytes`; the whole text where there is none.
fn prefix_at_space(text: &str, bytes: usize) -> &str {
    let rest = text.as_bytes().get(bytes..).unwrap_or_default();
    // A space byte never lies inside a longer UTF-8 character, so the cut is at a character's start.
    match rest.iter().position(|&byte| byte == b' ' || byte == b'\n') {
        Some(offset) => &text[..bytes + offset],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_a_space_and_never_inside_a_character() {
        assert_eq!(prefix_at_space("one two three", 4), "one two");
        assert_eq!(prefix_at_space("one two three", 3), "one");
        assert_eq!(prefix_at_space("one two", 5), "one two");
        assert_eq!(prefix_at_space("one", 99), "one");
        assert_eq!(prefix_at_space("ééé é", 3), "ééé");
    }
}
