//! Texts to token ids: one text on the calling thread, cut to the model's length with its closing tokens kept.

mod beginning;
pub(crate) mod channel_marks;
pub(crate) mod gguf;
mod ids;
mod kinds;
mod pair_prompt;
mod prompts;
pub(crate) mod vocabulary;
mod wordpiece;

use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};

use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    Encoding, NormalizerWrapper, PostProcessor, TruncationDirection, TruncationParams,
};

use crate::error::EngineError;
use crate::load::files::read;
use crate::load::folder::ModelFolder;
use crate::tokenizer::beginning::{Beginnings, PART_BYTES_MAX};
use crate::tokenizer::wordpiece::WordPiece;

/// Bytes of text tried first for each token that is kept. English WordPiece runs near 4 bytes a token, so
/// one try nearly always fills the model; the tries grow fourfold.
/// Tests try little, so that what is certain of a beginning decides.
const BYTES_PER_TOKEN: usize = if cfg!(test) { 1 } else { 16 };
/// Characters are found well within so many bytes after a try's length, in nearly every text.
const CUT_BYTES: usize = 1024;
/// Bytes of memory that the library takes for a byte of text, and that are taken for each byte in any case, in lower
/// case and with the prompt: measured by `tests/tokenizer_memory.rs`.
const LIBRARY_BYTES_PER_BYTE: usize = 192;
const COPIES: usize = 3;

/// A text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids with the model's special tokens around them.
    pub ids: Vec<u32>,
    /// How many of them are of the first type: all of them, unless they are of a pair and the model gets the
    /// types of tokens.
    pub first_len: usize,
    /// True when the text was longer than the model reads and was cut.
    pub truncated: bool,
}

/// The token that fills texts up to a length.
#[derive(Debug, Clone, Copy)]
struct Filler {
    id: u32,
    length: usize,
}

/// Writes the prompt of a query and a document.
pub(crate) type WritePrompt = dyn Fn(&str, &str) -> Result<String, EngineError> + Send + Sync;

/// The prompt that pairs are put into.
struct PairPrompt {
    write: Box<WritePrompt>,
    /// The tokens behind both texts, which stay where a prompt is cut: the model is asked by them.
    closing: Vec<u32>,
}

/// The first text of pairs, without special tokens. It belongs to the tokenizer that made it.
pub struct FirstOfPairs(First);

enum First {
    Tokens(Box<Encoding>),
    /// The text itself, which goes into a prompt with each of the others.
    Text(String),
}

/// The fast path: our own tokenisation, and the special tokens around it.
struct Fast {
    pieces: WordPiece,
    opening: Vec<u32>,
    closing: Vec<u32>,
}

/// A model's tokenizer. It is thread-safe.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The fast path for ASCII words, for tokenizers of BERT's kind.
    fast: Option<Fast>,
    tokens_max: usize,
    /// Which end of a text that is too long is cut off.
    cut_off: TruncationDirection,
    /// Whether the model gets the type of each token.
    gives_types: bool,
    /// `None` where the library has to read a text as a whole.
    beginnings: Option<Beginnings>,
    /// The prompt that goes before every text but the second of a pair.
    prompt: String,
    /// Reads queries, where the model reads them otherwise than documents.
    queries: Option<Box<Self>>,
    /// Fills texts up to a length.
    filler: Option<Filler>,
    /// The prompt that pairs are put into.
    pair_prompt: Option<PairPrompt>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. Truncation and padding that the file itself asks for are dropped: batches are
    /// never padded, and the length is the model's. `gives_types` is what tokenizers of the family do about types,
    /// where the folder doesn't say.
    pub(crate) fn load(
        folder: &ModelFolder,
        tokens_max: usize,
        gives_types: bool,
    ) -> Result<Self, EngineError> {
        let prompt = folder.prompts().default.as_deref().unwrap_or_default();
        Self::load_with(folder, tokens_max, gives_types, prompt, |_| Ok(()))
    }

    /// Reads `tokenizer.json`, to put `prompt` before texts. `change` may add tokens.
    fn load_with(
        folder: &ModelFolder,
        tokens_max: usize,
        gives_types: bool,
        prompt: &str,
        change: impl FnOnce(&mut tokenizers::Tokenizer) -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        let path = folder.tokenizer_path();
        let invalid = |problem: String| EngineError::Tokenizer {
            problem: format!("{}: {problem}", path.display()),
        };
        let bytes = read(&path)?;
        let mut inner =
            contained(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(&invalid)?;
        inner.with_padding(None);
        let config = folder.tokenizer_config();
        let cut_off = match (config.keeps_end, inner.get_truncation()) {
            (Some(true), _) => TruncationDirection::Left,
            (None, Some(truncation)) => truncation.direction,
            _ => TruncationDirection::Right,
        };
        inner.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        change(&mut inner)?;
        if folder.lower_cases() {
            lower_case(&mut inner).map_err(|error| invalid(error.to_string()))?;
        }
        let specials = contained(|| inner.encode_fast("", true)).map_err(&invalid)?.len();
        if specials >= tokens_max {
            return Err(invalid(format!(
                "{specials} special tokens leave no room in {tokens_max} tokens"
            )));
        }
        let fast = contained(|| Fast::of(&inner)).map_err(&invalid)?;
        let beginnings = Beginnings::of(&inner);
        Ok(Self {
            inner,
            fast,
            tokens_max,
            cut_off,
            gives_types: config.gives_types.unwrap_or(gives_types),
            beginnings,
            prompt: prompt.to_owned(),
            queries: None,
            filler: None,
            pair_prompt: None,
        })
    }

    /// Whether a longer text keeps its end instead of its beginning.
    pub fn keeps_end(&self) -> bool {
        matches!(self.cut_off, TruncationDirection::Left)
    }

    /// Whether the model gets to know which tokens are of the second text of a pair.
    pub fn gives_types(&self) -> bool {
        self.gives_types
    }

    /// The most tokens that [`Self::encode`] returns.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// An upper bound of the memory that tokenizing a text of so many bytes takes, the text itself not counted.
    pub fn bytes_needed(text_bytes: usize) -> usize {
        let library = text_bytes.min(PART_BYTES_MAX).saturating_mul(LIBRARY_BYTES_PER_BYTE);
        text_bytes.saturating_mul(COPIES).saturating_add(library)
    }

    /// The text's tokens, cut at the model's length: the first tokens and the closing special tokens stay, as if the
    /// whole text were tokenized and then cut. The model's default prompt, where it has one, goes before the text.
    /// [`EngineError::TextTooLarge`] for one of the rare texts whose first 256 KiB don't settle these tokens.
    /// A model that keeps the end of a text gets its last tokens, and a text of more than 256 KiB is too large for it.
    pub fn encode(&self, text: &str) -> Result<Tokens, EngineError> {
        let text = &*self.prompted(text);
        if self.keeps_end() {
            return Ok(self.filled(self.cut(self.first_tokens(text, usize::MAX)?)?));
        }
        // One more than the model reads shows that there are more.
        let enough = self.tokens_max + 1;
        let Some(fast) = &self.fast else {
            return Ok(self.filled(self.cut(self.first_tokens(text, enough)?)?));
        };
        let mut ids = fast.opening.clone();
        fast.pieces.tokenize(text, enough, &mut ids, |part| {
            Ok::<_, EngineError>(self.first_tokens(part, enough)?.get_ids().to_vec())
        })?;
        ids.extend_from_slice(&fast.closing);
        let truncated = ids.len() > self.tokens_max;
        if truncated {
            ids.truncate(self.tokens_max - fast.closing.len());
            ids.extend_from_slice(&fast.closing);
        }
        Ok(self.filled(Tokens { first_len: ids.len(), ids, truncated }))
    }

    /// The text's tokens, or [`EngineError::InputTooLong`] when the model cannot read all of them.
    pub fn encode_untruncated(&self, text: &str) -> Result<Tokens, EngineError> {
        match self.encode(text)? {
            tokens if tokens.truncated => {
                Err(EngineError::InputTooLong { tokens_max: self.tokens_max })
            }
            tokens => Ok(tokens),
        }
    }

    /// A text that is to be the first of pairs, tokenised once for all of them. The model's default prompt goes before
    /// it.
    pub fn first_of_pairs(&self, text: &str) -> Result<FirstOfPairs, EngineError> {
        Ok(FirstOfPairs(match self.pair_prompt {
            Some(_) => First::Text(text.to_owned()),
            None => First::Tokens(Box::new(self.tokens_of_pair(&self.prompted(text))?)),
        }))
    }

    /// The tokens of a text of a pair of which some may be kept.
    fn tokens_of_pair(&self, text: &str) -> Result<Encoding, EngineError> {
        self.first_tokens(text, if self.keeps_end() { usize::MAX } else { self.tokens_max })
    }

    /// The tokens of two texts, as the model reads a pair; too many are cut off one by one from the longer text's end.
    /// Of two texts that are both longer than the model reads the second keeps the token that is left over.
    pub fn encode_pair(&self, first: &FirstOfPairs, second: &str) -> Result<Tokens, EngineError> {
        let first = match (&first.0, &self.pair_prompt) {
            (First::Text(query), Some(prompt)) => {
                return self.encode_prompted(prompt, query, second);
            }
            (First::Text(query), None) => self.tokens_of_pair(query)?,
            (First::Tokens(tokens), _) => tokens.as_ref().clone(),
        };
        let second = self.tokens_of_pair(second)?;
        let specials = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        let tokens_max = self.tokens_max.saturating_sub(specials);
        let truncated = first.len() + second.len() > tokens_max;
        library(|| {
            let cut = TruncationParams {
                max_length: tokens_max,
                direction: self.cut_off,
                ..TruncationParams::default()
            };
            let (first, second) = truncate_encodings(first, Some(second), &cut)?;
            let pair = self.inner.post_process(first, second, true)?;
            let first_len = if self.gives_types {
                pair.get_type_ids().iter().take_while(|&&id| id == 0).count()
            } else {
                pair.len()
            };
            Ok(Tokens { ids: pair.get_ids().to_vec(), first_len, truncated })
        })
    }

    /// The tokens of a text without special ones: all, or the first `enough` of them.
    fn first_tokens(&self, text: &str, enough: usize) -> Result<Encoding, EngineError> {
        let bytes_max = PART_BYTES_MAX - CUT_BYTES;
        let mut bytes = enough.saturating_mul(BYTES_PER_TOKEN).min(bytes_max);
        loop {
            let beginnings = self.beginnings.as_ref().filter(|_| bytes <= bytes_max);
            let beginning = beginnings.and_then(|these| Some((these, these.cut(text, bytes)?)));
            let end = beginning.map_or(text.len(), |(_, end)| end);
            if end > PART_BYTES_MAX {
                let bytes_max = PART_BYTES_MAX;
                return Err(EngineError::TextTooLarge { bytes: text.len(), bytes_max });
            }
            let part = &text[..end];
            let mut tokens = library(|| self.inner.encode_fast(part, false))?;
            let certain = match beginning {
                Some((these, _)) if tokens.len() >= enough => {
                    library(|| these.certain(&self.inner, part, tokens.len()))?
                }
                Some(_) => 0,
                None => enough, // there are no others
            };
            if certain >= enough {
                tokens.truncate(enough, 0, TruncationDirection::Right);
                tokens.take_overflowing();
                return Ok(tokens);
            }
            // After the longest beginning the whole text, which may still be short enough.
            bytes = if bytes < bytes_max { (4 * bytes).min(bytes_max) } else { usize::MAX };
        }
    }

    fn prompted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.prompt.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(format!("{}{text}", self.prompt))
        }
    }

    /// Puts special tokens around a text's tokens and cuts at the model's length.
    fn cut(&self, tokens: Encoding) -> Result<Tokens, EngineError> {
        let encoding = library(|| self.inner.post_process(tokens, None, true))?;
        let ids = encoding.get_ids();
        if ids.len() <= self.tokens_max {
            return Ok(Tokens { ids: ids.to_vec(), first_len: ids.len(), truncated: false });
        }
        // Only tokens that the template added are masked: a "[SEP]" written in the text is not.
        let specials = encoding.get_special_tokens_mask();
        let (head, tail) = if self.keeps_end() {
            let opening = specials.iter().take_while(|&&special| special == 1).count();
            (&ids[..opening], &ids[ids.len() - (self.tokens_max - opening)..])
        } else {
            let closing = specials.iter().rev().take_while(|&&special| special == 1).count();
            (&ids[..self.tokens_max - closing], &ids[ids.len() - closing..])
        };
        Ok(Tokens { ids: [head, tail].concat(), first_len: self.tokens_max, truncated: true })
    }
}

/// Lower-cases texts before everything else, as sentence-transformers 6 does: character by character, and not within
/// added tokens. (Its version 5 lower-cased the whole text, with a character of its own for a final sigma.)
fn lower_case(tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let mut parts = vec![NormalizerWrapper::Lowercase(Lowercase)];
    match tokenizer.get_normalizer().cloned() {
        Some(NormalizerWrapper::Lowercase(_)) => return Ok(()),
        // It lower-cases as well, after parts that case means nothing to.
        Some(NormalizerWrapper::BertNormalizer(bert)) if bert.lowercase => return Ok(()),
        Some(NormalizerWrapper::Sequence(sequence)) => parts.extend(sequence.as_ref().to_vec()),
        Some(other) => parts.push(other),
        None => {}
    }
    tokenizer.with_normalizer(Some(Sequence::new(parts)))?;
    Ok(())
}

impl Fast {
    /// `None` where the tokenizer is of another kind, or where it does more with its tokens than put special ones
    /// around them.
    fn of(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Option<Self>> {
        let Some(pieces) = WordPiece::of(tokenizer) else { return Ok(None) };
        let bare = tokenizer.encode_fast("water", false)?;
        let whole = tokenizer.encode_fast("water", true)?;
        let specials = whole.get_special_tokens_mask();
        let opening = specials.iter().take_while(|&&special| special == 1).count();
        let (opening, rest) = whole.get_ids().split_at(opening);
        let closing = rest.strip_prefix(bare.get_ids());
        Ok(closing.map(|closing| Self {
            pieces,
            opening: opening.to_vec(),
            closing: closing.to_vec(),
        }))
    }
}

/// Runs a part of the tokenizers library on a text.
fn library<T>(part: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, EngineError> {
    contained(part).map_err(|problem| EngineError::Tokenizer { problem })
}

/// Runs a part of the tokenizers library, which panics at some files and texts where it could have said
/// what is wrong. Nothing that it was building is used afterwards.
fn contained<T>(part: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(part)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library can't cope with it".to_owned()),
    }
}

#[cfg(test)]
mod tests;
