//! The first tokens of a long text from its first bytes alone, equal to those of the whole text.
//!
//! The beginning ends between two characters (see [`is_plain`]), where every part of the pipeline but the model treats
//! both sides alone, so that all words of the beginning but its last are words of the whole text too. The last word may
//! go on; of its tokens those are certain that [`Beginnings::agreed`] finds.

use std::collections::HashSet;

use serde_json::Value;
use tokenizers::tokenizer::normalizer::OffsetReferential;
use tokenizers::{Model, ModelWrapper, OffsetType, PreTokenizer, Tokenizer};

/// Bytes that the tokenizers library gets at once. It takes up to 190 bytes of memory for each
/// (measured by `tests/tokenizer_memory.rs`), so this bounds a thread's use at 48 MiB.
pub(crate) const PART_BYTES_MAX: usize = 256 * 1024;

/// Where a tokenizer's texts can be cut, and which tokens are certain before a cut.
pub(crate) struct Beginnings {
    /// Characters that stand side by side in an added token, in lower case: no cut goes between them.
    joined: HashSet<(char, char)>,
    /// Characters that end an added token which only matches as a word of its own.
    closing: HashSet<char>,
    /// Bytes of the model's longest piece.
    piece_bytes_max: usize,
}

impl Beginnings {
    /// `None` for a pipeline with a part that may look further than at the characters beside a cut.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
        let words = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
        if !normalizes_locally(&normalizer) || !splits_locally(&words) {
            return None;
        }
        let mut joined = HashSet::new();
        let mut closing = HashSet::new();
        for token in tokenizer.get_added_tokens_decoder().values() {
            if token.normalized && !token.content.is_ascii() {
                return None; // its normalised form may have other characters
            }
            let content: Vec<char> = token.content.chars().map(lower).collect();
            joined.extend(content.windows(2).map(|pair| (pair[0], pair[1])));
            closing.extend(content.last().filter(|_| token.single_word));
        }
        let vocabulary = tokenizer.get_vocab(false);
        let piece_bytes_max = vocabulary.keys().map(String::len).max()?.max(char::MAX.len_utf8());
        Some(Self { joined, closing, piece_bytes_max })
    }

    /// The first position at or after `bytes` where the text can be cut.
    pub(crate) fn cut(&self, text: &str, bytes: usize) -> Option<usize> {
        let from = (bytes..text.len()).find(|&at| text.is_char_boundary(at))?;
        let mut before = text[..from].chars().rev();
        let mut last = before.next()?;
        let mut last_but_one = before.next()?;
        for (offset, next) in text[from..].char_indices() {
            // Three characters: after an apostrophe and one character, a second may make them a word ("'ll").
            let characters = [last_but_one, last, next].into_iter().all(is_plain);
            let joined = self.joined.contains(&(lower(last), lower(next)));
            if characters && !joined && !self.closing.contains(&lower(last)) {
                return Some(from + offset);
            }
            last_but_one = last;
            last = next;
        }
        None
    }

    /// How many of the `tokens` tokens of a beginning that ends at a cut are certain.
    pub(crate) fn certain(
        &self,
        tokenizer: &Tokenizer,
        beginning: &str,
        tokens: usize,
    ) -> tokenizers::Result<usize> {
        let added = tokenizer.get_added_vocabulary();
        let mut words = added.extract_and_normalize(tokenizer.get_normalizer(), beginning);
        if let Some(splitter) = tokenizer.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut words)?;
        }
        let last = words.get_splits(OffsetReferential::Normalized, OffsetType::None).pop();
        // An added token at the end is complete, or the cut would be within it.
        let Some((word, _, None)) = last else { return Ok(tokens) };
        let ids = ids(tokenizer, word)?;
        let agreed = self.agreed(tokenizer, word, &ids)?;
        Ok(tokens.saturating_sub(ids.len()) + agreed)
    }

    /// How many of a word's tokens stay, whatever it goes on with.
    ///
    /// WordPiece takes a word that is too long for the unknown token. BPE and unigram models have this in common:
    /// where the tokens of a text have a boundary, those before it are the tokens of the text up to there (no merge
    /// crossed it; the best path to it depends on nothing after it). Among any as many bytes as the longest
    /// piece has there is a boundary, whichever it is: what all cuts among the last of them agree on is certain.
    fn agreed(&self, tokenizer: &Tokenizer, word: &str, all: &[u32]) -> tokenizers::Result<usize> {
        match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => {
                return Ok(usize::from(word.chars().count() > model.max_input_chars_per_word));
            }
            ModelWrapper::BPE(model)
                if model.dropout.is_none() && model.end_of_word_suffix.is_none() => {}
            ModelWrapper::Unigram(model) if !model.byte_fallback() => {}
            _ => return Ok(0),
        }
        // Below twice the longest piece a beginning may be a piece as a whole, which some models take unmerged.
        if word.len() <= 2 * self.piece_bytes_max {
            return Ok(0);
        }
        let mut agreed = all.len();
        for end in word.len() - self.piece_bytes_max..word.len() {
            if word.is_char_boundary(end) {
                let ids = ids(tokenizer, &word[..end])?;
                let equal = ids.iter().zip(all).take_while(|(one, other)| one == other).count();
                agreed = agreed.min(equal);
            }
        }
        Ok(agreed)
    }
}

fn ids(tokenizer: &Tokenizer, word: &str) -> tokenizers::Result<Vec<u32>> {
    Ok(tokenizer.get_model().tokenize(word)?.into_iter().map(|token| token.id).collect())
}

/// Whether each part of a normaliser changes characters by themselves and their combining marks alone, or
/// whitespace: then it treats both sides of a cut alone.
fn normalizes_locally(part: &Value) -> bool {
    let pattern = &part["pattern"];
    match part["type"].as_str() {
        Some("Sequence") => all(&part["normalizers"], normalizes_locally),
        Some("Replace") => match pattern["String"].as_str() {
            Some(replaced) => !replaced.contains(char::is_alphanumeric),
            None => pattern["Regex"] == " {2,}",
        },
        Some(
            "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt"
            | "Precompiled" | "Prepend" | "Strip" | "StripAccents",
        ) => true,
        _ => part.is_null(),
    }
}

/// Whether each part of a pre-tokenizer finds its words from left to right and looks no further than at one character
/// after a word.
fn splits_locally(part: &Value) -> bool {
    match part["type"].as_str() {
        Some("Sequence") => all(&part["pretokenizers"], splits_locally),
        Some(
            "BertPreTokenizer" | "ByteLevel" | "Digits" | "Metaspace" | "Punctuation"
            | "Whitespace" | "WhitespaceSplit",
        ) => true,
        _ => part.is_null(),
    }
}

fn all(parts: &Value, is: fn(&Value) -> bool) -> bool {
    parts.as_array().is_some_and(|parts| parts.iter().all(is))
}

/// The lower case of a character that has one of a single character.
fn lower(character: char) -> char {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => character,
    }
}

/// Characters between which a text can be cut: no normal form composes one with the character before it, each begins a
/// grapheme of its own, and every pre-tokenizer takes them for part of a word. Common scripts are enough. Not among
/// them: Latin ones with accents, whose normal form may be that of an added token's characters; the Greek sigma, whose
/// lower case depends on what follows it; and characters that modify others.
fn is_plain(character: char) -> bool {
    let is_greek_or_cyrillic = || {
        !matches!(character, '\u{3a2}' | '\u{3a3}')
            && matches!(character, '\u{391}'..='\u{3c9}' | '\u{410}'..='\u{44f}')
    };
    let is_hebrew = || matches!(character, '\u{5d0}'..='\u{5ea}');
    let is_arabic = || matches!(character, '\u{621}'..='\u{63a}' | '\u{641}'..='\u{64a}');
    let is_consonant_of_devanagari_or_thai =
        || matches!(character, '\u{915}'..='\u{939}' | '\u{e01}'..='\u{e2e}');
    let is_kana = || matches!(character, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}');
    let is_chinese_or_hangul =
        || matches!(character, '\u{4e00}'..='\u{9fef}' | '\u{ac00}'..='\u{d7a3}');
    character.is_ascii_alphanumeric()
        || is_greek_or_cyrillic()
        || is_hebrew()
        || is_arabic()
        || is_consonant_of_devanagari_or_thai()
        || is_kana()
        || is_chinese_or_hangul()
}
