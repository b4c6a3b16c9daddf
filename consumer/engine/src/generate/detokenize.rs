//! Tokens to text, one token at a time.

use std::str;
use std::sync::Arc;

use crate::generate::channels::Channels;
use crate::tokenizer::vocabulary::{Beginning, Vocabulary};

/// The text of a growing list of tokens. What was returned is never taken back, is never half a character, and
/// together is what the tokenizers library decodes the whole list to.
///
/// Of an answer in channels it is what is in the channel `final`. In one case it is more: where a vocabulary has tokens
/// for single bytes, the library makes a replacement character of every byte in a row of them if one character of the
/// row is broken, and here the whole ones stay.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    keeps_special: bool,
    /// Of a model that answers in several.
    channels: Option<Channels>,
    /// Spaces that the beginning of the text still loses.
    spaces: usize,
    /// Whether the next token that has text is the first.
    is_first: bool,
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// For a text that begins with the first token, as an answer of a chat does.
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        let spaces = match vocabulary.beginning {
            Beginning::WithoutSpaces(count) => count,
            Beginning::Whole | Beginning::FirstWithoutSpaces => 0,
        };
        let is_first = vocabulary.beginning == Beginning::FirstWithoutSpaces;
        let channels = vocabulary.marks.map(Channels::new);
        Self { vocabulary, keeps_special: false, channels, spaces, is_first, pending: Vec::new() }
    }

    /// For tokens that go on with a text: a space at their beginning stays.
    pub fn following(vocabulary: Arc<Vocabulary>) -> Self {
        Self {
            vocabulary,
            keeps_special: false,
            channels: None,
            spaces: 0,
            is_first: false,
            pending: Vec::new(),
        }
    }

    /// Special tokens become text too, which formats of tool calls need.
    #[must_use]
    pub fn keeping_special(mut self) -> Self {
        self.keeps_special = true;
        self
    }

    /// Appends the text that became certain with this token.
    pub fn push(&mut self, token: u32, text: &mut String) {
        if let Some(channels) = &mut self.channels
            && !channels.shows(token, &self.vocabulary)
        {
            return;
        }
        if !self.keeps_special && self.vocabulary.is_special(token) {
            return;
        }
        let mut bytes = self.vocabulary.bytes(token);
        if self.is_first && (token as usize) < self.vocabulary.len() {
            self.is_first = false;
            self.pending.extend(bytes.iter().filter(|&&byte| byte != b' '));
        } else {
            while self.spaces > 0 && !bytes.is_empty() {
                match bytes.strip_prefix(b" ") {
                    Some(rest) => (self.spaces, bytes) = (self.spaces - 1, rest),
                    None => self.spaces = 0,
                }
            }
            self.pending.extend_from_slice(bytes);
        }
        self.take(false, text);
    }

    /// Appends what is left at the end: a character that was never whole becomes a replacement character.
    pub fn finish(&mut self, text: &mut String) {
        self.take(true, text);
    }

    /// Moves whole characters from the pending bytes to the text.
    fn take(&mut self, is_end: bool, text: &mut String) {
        let mut rest = self.pending.as_slice();
        loop {
            let error = match str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (whole, broken) = rest.split_at(error.valid_up_to());
            text.push_str(str::from_utf8(whole).unwrap_or_default());
            rest = broken;
            let length = match error.error_len() {
                Some(length) => length,
                None if is_end => rest.len(),
                None => break, // the beginning of a character
            };
            // The library makes one of each byte where bytes are tokens, else one of each broken character.
            let count = if self.vocabulary.has_byte_tokens { length } else { 1 };
            text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
            rest = &rest[length..];
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer as Library;

    use super::*;
    use crate::tokenizer::vocabulary::tests::{
        BYTE_LEVEL, GEMMA, LLAMA, METASPACE, byte_characters, library_of,
    };

    /// Tokens of one and two bytes, some words, a special token.
    fn byte_level() -> Library {
        let characters = byte_characters();
        let mut tokens: Vec<String> = characters.iter().map(ToString::to_string).collect();
        for pair in "äöü€☂水😀 né".as_bytes().windows(2) {
            tokens.push(pair.iter().map(|&byte| characters[byte as usize]).collect());
        }
        tokens.extend(["Ġwater", "<tool call>", "Ċ"].map(str::to_owned));
        tokens.sort();
        tokens.dedup();
        library_of(&tokens, &["<|end|>"], BYTE_LEVEL)
    }

    fn byte_fallback(decoder: &str) -> Library {
        let mut tokens: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        tokens.extend(["▁water", "▁", "▁▁", "é", "水", "a▁b", "x"].map(str::to_owned));
        library_of(&tokens, &["</s>"], decoder)
    }

    /// All text of these tokens, with checks of what was returned on the way.
    fn streamed(mut detokenizer: Detokenizer, tokens: &[u32]) -> String {
        let mut all = String::new();
        for &token in tokens {
            detokenizer.push(token, &mut all);
            assert!(detokenizer.pending.len() < 4);
        }
        detokenizer.finish(&mut all);
        detokenizer.finish(&mut all);
        all
    }

    fn check(library: &Library, tokens: &[u32]) {
        let vocabulary = Arc::new(Vocabulary::of(library).unwrap());
        let whole = |skip| library.decode(tokens, skip).unwrap();
        assert_eq!(streamed(Detokenizer::new(Arc::clone(&vocabulary)), tokens), whole(true));
        assert_eq!(streamed(Detokenizer::new(vocabulary).keeping_special(), tokens), whole(false));
    }

    /// Ids of byte tokens for a text.
    fn bytes_of(text: &str) -> impl Iterator<Item = u32> {
        text.bytes().map(u32::from).collect::<Vec<_>>().into_iter()
    }

    proptest! {
        #[test]
        fn text_of_single_tokens_is_the_text_of_all(tokens in proptest::collection::vec(0u32..300, 0..40)) {
            check(&byte_level(), &tokens);
        }

        /// Rows of byte tokens that are whole characters or wholly broken.
        #[test]
        fn text_of_byte_tokens_is_the_text_of_all(parts in proptest::collection::vec(
            prop_oneof![
                (256u32..266).prop_map(|token| vec![token]),
                "[é水😀a ]{1,3}".prop_map(|text| bytes_of(&text).collect()),
                proptest::collection::vec(0x80u32..0xC0, 1..4).prop_map(|row| [vec![262], row, vec![262]].concat()),
                Just(vec![262, 0xE6, 0xB0, 262]),
            ],
            0..12,
        )) {
            let tokens = parts.concat();
            check(&byte_fallback(LLAMA), &tokens);
            check(&byte_fallback(GEMMA), &tokens);
        }

        #[test]
        fn text_of_pieces_is_the_text_of_all(tokens in proptest::collection::vec(256u32..270, 0..12)) {
            check(&byte_fallback(METASPACE), &tokens);
            check(&byte_fallback("null"), &tokens);
        }
    }

    #[test]
    fn a_character_comes_when_it_is_whole() {
        let vocabulary = Arc::new(Vocabulary::of(&byte_fallback(LLAMA)).unwrap());
        let mut detokenizer = Detokenizer::new(vocabulary);
        let mut text = String::new();
        let mut lengths = Vec::new();
        for token in bytes_of("a水") {
            detokenizer.push(token, &mut text);
            lengths.push(text.len());
        }
        assert_eq!(lengths, [1, 1, 1, 4]);
    }

    #[test]
    fn tokens_that_go_on_keep_their_space() {
        let vocabulary = Arc::new(Vocabulary::of(&byte_fallback(LLAMA)).unwrap());
        assert_eq!(streamed(Detokenizer::new(Arc::clone(&vocabulary)), &[256]), "water");
        assert_eq!(streamed(Detokenizer::following(vocabulary), &[256]), " water");
    }
}
