//! Texts to token ids: one text on the calling thread, cut to the model's length with its closing tokens kept.

mod wordpiece;

use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};

use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    Encoding, NormalizerWrapper, PostProcessor, PreTokenizerWrapper, TruncationParams,
};

use crate::error::EngineError;
use crate::load::folder::{ModelFolder, read};
use crate::tokenizer::wordpiece::WordPiece;

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

/// The first text of pairs, without special tokens. It belongs to the tokenizer that made it.
pub struct FirstOfPairs(Encoding);

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
    lower_case: bool,
    splits_at_spaces: bool,
    /// The prompt that goes before every text but those of a pair.
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
        let fast = contained(|| Fast::of(&inner)).map_err(&invalid)?;
        let splits_at_spaces = splits_at_spaces(&inner);
        let lower_case = folder.lower_cases();
        let prompt = folder.default_prompt().unwrap_or_default().to_owned();
        Ok(Self { inner, fast, tokens_max, lower_case, splits_at_spaces, prompt })
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
        let text = &*self.prompted(text);
        let ids = match &self.fast {
            Some(fast) => self.fast_ids(fast, text, usize::MAX)?,
            None => self.encoding(text)?.get_ids().to_vec(),
        };
        if ids.len() > self.tokens_max {
            return Err(EngineError::InputTooLong {
                tokens: ids.len(),
                tokens_max: self.tokens_max,
            });
        }
        Ok(Tokens { first_len: ids.len(), ids, truncated: false })
    }

    /// A text that is to be the first of pairs, tokenised once for all of them.
    pub fn first_of_pairs(&self, text: &str) -> Result<FirstOfPairs, EngineError> {
        self.beginning(text).map(FirstOfPairs)
    }

    /// The tokens of two texts, as the model reads a pair; too many are cut off one by one from the longer text's end.
    pub fn encode_pair(&self, first: &FirstOfPairs, second: &str) -> Result<Tokens, EngineError> {
        let first = first.0.clone();
        let second = self.beginning(second)?;
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
        if let Some(fast) = &self.fast {
            let mut ids = self.fast_ids(fast, text, self.tokens_max + 1)?;
            let truncated = ids.len() > self.tokens_max;
            if truncated {
                ids.truncate(self.tokens_max - fast.closing.len());
                ids.extend_from_slice(&fast.closing);
            }
            return Ok(Tokens { first_len: ids.len(), ids, truncated });
        }
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
        let head = &ids[..self.tokens_max - closing];
        let tail = &ids[ids.len() - closing..];
        Ok(Tokens { ids: [head, tail].concat(), first_len: self.tokens_max, truncated: true })
    }

    /// All tokens of a text, or its first `enough` and perhaps some more, with special ones around them.
    fn fast_ids(&self, fast: &Fast, text: &str, enough: usize) -> Result<Vec<u32>, EngineError> {
        let text = &*self.cased(text);
        let mut ids = fast.opening.clone();
        fast.pieces.tokenize(text, enough, &mut ids, |part| {
            contained(|| Ok(self.inner.encode_fast(part, false)?.get_ids().to_vec()))
                .map_err(|problem| EngineError::Tokenizer { problem })
        })?;
        ids.extend_from_slice(&fast.closing);
        Ok(ids)
    }

    fn cased<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lower_case { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
    }

    fn encoding(&self, text: &str) -> Result<Encoding, EngineError> {
        self.encoding_of(text, true)
    }

    fn encoding_of(&self, text: &str, specials: bool) -> Result<Encoding, EngineError> {
        contained(|| self.inner.encode_fast(self.cased(text), specials))
            .map_err(|problem| EngineError::Tokenizer { problem })
    }
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
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::normalizers::BertNormalizer;

    use super::*;

    /// The tokenizer of a small model of this repository.
    fn tiny(model: &str) -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny");
        let folder = ModelFolder::open(&std::path::Path::new(folder).join(model)).unwrap();
        Tokenizer::load(&folder, 128).unwrap()
    }

    /// A tokenizer with the fast path, and an equal one without.
    fn with_and_without_fast(mut change: impl FnMut(&mut tokenizers::Tokenizer)) -> [Tokenizer; 2] {
        let mut both = [tiny("bert"), tiny("bert")];
        for tokenizer in &mut both {
            change(&mut tokenizer.inner);
            tokenizer.fast = Fast::of(&tokenizer.inner).unwrap();
            assert!(tokenizer.fast.is_some());
        }
        both[1].fast = None;
        both
    }

    /// Tokenizers as they are; with case kept; and with text that is not cleaned, and accents that stay.
    static PAIRS: LazyLock<[[Tokenizer; 2]; 3]> = LazyLock::new(|| {
        let normalized = |clean, accents, lower| {
            with_and_without_fast(|inner| {
                let normalizer = BertNormalizer::new(clean, true, accents, lower);
                inner.with_normalizer(Some(normalizer)).unwrap();
            })
        };
        [
            with_and_without_fast(|_| {}),
            normalized(true, None, false),
            normalized(false, Some(false), true),
        ]
    });

    /// Words, punctuation, what is or looks like a special token, and characters of all kinds.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-zA-Z0-9]{1,12}",
            2 => "[ -~]{1,6}",
            1 => prop::sample::select(vec![
                "[SEP]", "[sep]", "[UNK]x", "##ing", "\u{301}", "na\u{ef}ve", "e\u{301}", "\u{130}I\u{3a3}\u{3c2}",
                "\u{65e5}\u{672c}", "\u{200b}", "\0", "\u{7f}", "\u{b}", "\u{a0}", "\u{2028}", "\u{1f600}", "\u{fffd}",
            ]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
            1 => "[a-z]{90,130}",
        ];
        let gap = prop::sample::select(vec!["", " ", "  ", "\n", "\t", "\r\n", "\u{3000}"]);
        prop::collection::vec((piece, gap), 0..60).prop_map(|parts| {
            parts.into_iter().flat_map(|(piece, gap)| [piece, gap.to_owned()]).collect()
        })
    }

    proptest! {
        #[test]
        fn the_fast_path_gives_the_library_s_tokens(text in texts()) {
            for [ours, theirs] in PAIRS.iter() {
                prop_assert_eq!(ours.encode(&text).unwrap(), theirs.encode(&text).unwrap());
                let all = |tokenizer: &Tokenizer| {
                    tokenizer.encode_untruncated(&text).map_err(|error| error.to_string())
                };
                prop_assert_eq!(all(ours), all(theirs));
            }
        }
    }

    #[test]
    fn tokenizers_of_other_kinds_have_no_fast_path() {
        for model in ["roberta-classify", "xlm-roberta-rerank"] {
            assert!(tiny(model).fast.is_none(), "{model}");
        }
        let mut reaching = tiny("bert").inner;
        let token = tokenizers::AddedToken::from("[MASK]", true).lstrip(true);
        reaching.add_special_tokens([token]).unwrap();
        assert!(Fast::of(&reaching).unwrap().is_none(), "it takes the space before it");
    }

    #[test]
    fn a_prefix_ends_before_a_space_and_never_inside_a_character() {
        assert_eq!(prefix_at_space("one two three", 4), "one two");
        assert_eq!(prefix_at_space("one two three", 3), "one");
        assert_eq!(prefix_at_space("one two", 5), "one two");
        assert_eq!(prefix_at_space("one", 99), "one");
        assert_eq!(prefix_at_space("ééé é", 3), "ééé");
    }
}
