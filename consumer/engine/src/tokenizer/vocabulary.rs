//! The text of each token, by which generated tokens become text again.
//!
//! The library decodes a whole list of tokens at once. Streams need the text token by token, and guides need to know
//! which tokens a text can go on with, so the library's decoders are taken apart here, those that language models have:
//! each token becomes bytes of its own, and what depends on neighbours is the beginning of a text alone.

use serde_json::Value;
use tokenizers::Tokenizer as Library;

use crate::error::EngineError;
use crate::tokenizer::channel_marks::ChannelMarks;
use crate::tokenizer::{Tokenizer, library};

/// The largest id that is read, to bound the memory of a broken file: ten times the largest vocabulary known.
const TOKENS_MAX: usize = 1 << 22;

/// How the library cuts the beginning of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beginning {
    /// Not at all.
    Whole,
    /// Up to so many spaces are cut off.
    WithoutSpaces(usize),
    /// The first token loses its spaces.
    FirstWithoutSpaces,
}

/// The bytes of each token of a model. Made once for a model and shared.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The bytes of all tokens end to end, in the order of ids.
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    /// Whether a token is special, by id: its text is no part of an answer.
    special: Vec<bool>,
    pub(crate) beginning: Beginning,
    /// Of a model that answers in channels.
    pub(crate) marks: Option<ChannelMarks>,
    /// Tokens of single bytes stand for what the vocabulary lacks.
    pub(crate) has_byte_tokens: bool,
}

impl Vocabulary {
    /// The number of ids, those included that no token has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes that a token adds to a text, which may be part of a character; empty for ids that no token has.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// Whether a token is a control token, such as the end of a turn.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }

    /// Of the bytes of a `tokenizer.json`.
    pub fn from_tokenizer_json(bytes: &[u8]) -> Result<Self, EngineError> {
        Self::of(&library(|| Library::from_bytes(bytes))?)
    }

    /// Takes the library's tokenizer apart.
    pub(crate) fn of(library: &Library) -> Result<Self, EngineError> {
        let decoder = serde_json::to_value(library.get_decoder());
        let decoder = decoder.map_err(|error| invalid(error.to_string()))?;
        let how = Decoding::of(&decoder)?;
        let added = library.get_added_tokens_decoder();
        let mut tokens = library.get_vocab(true);
        let highest = tokens.values().chain(added.keys()).copied().max();
        let count = highest.map_or(0, |highest| highest as usize + 1);
        if count > TOKENS_MAX {
            return Err(invalid(format!(
                "it has ids up to {count}, and the most that are read are {TOKENS_MAX}"
            )));
        }
        // An added token may have the text of another id; the library looks for the added one first.
        let mut texts = vec![None; count];
        for (text, id) in tokens.drain() {
            texts[id as usize] = Some(text);
        }
        let mut special = vec![false; count];
        for (id, token) in added {
            special[id as usize] = token.special;
            texts[id as usize] = Some(token.content);
        }
        let marks = ChannelMarks::of(|mark| {
            let is_mark = |id: &usize| special[*id] && texts[*id].as_deref() == Some(mark);
            (0..count).find(is_mark).map(|id| id as u32)
        });
        let mut it = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(count),
            special,
            marks,
            beginning: how.beginning,
            has_byte_tokens: how.has_byte_tokens,
        };
        for text in texts {
            if let Some(text) = text {
                how.append(&text, &mut it.bytes);
            }
            let end = u32::try_from(it.bytes.len());
            it.ends.push(
                end.map_err(|_| invalid("its tokens have more than 4 GiB of text".to_owned()))?,
            );
        }
        Ok(it)
    }
}

impl Tokenizer {
    /// The text of each token.
    pub fn vocabulary(&self) -> Result<Vocabulary, EngineError> {
        Vocabulary::of(&self.inner)
    }
}

fn invalid(problem: String) -> EngineError {
    EngineError::Tokenizer { problem }
}

/// The changes that the decoder makes to the text of one token.
#[derive(Debug)]
struct Decoding {
    /// Texts to replace and what with, in this order.
    replacements: Vec<(String, String)>,
    /// Characters stand for bytes, as in GPT-2.
    is_byte_level: bool,
    has_byte_tokens: bool,
    /// Tokens are words with a space between them.
    words: bool,
    beginning: Beginning,
}

impl Decoding {
    fn of(decoder: &Value) -> Result<Self, EngineError> {
        let mut it = Self {
            replacements: Vec::new(),
            is_byte_level: false,
            has_byte_tokens: false,
            words: decoder.is_null(),
            beginning: if decoder.is_null() {
                Beginning::WithoutSpaces(1)
            } else {
                Beginning::Whole
            },
        };
        let single = std::slice::from_ref(decoder);
        let parts = match decoder["decoders"].as_array() {
            Some(parts) => parts.as_slice(),
            None if decoder.is_null() => &[],
            None => single,
        };
        let mut is_fused = false;
        for part in parts {
            it.add(part, &mut is_fused).ok_or_else(|| {
                invalid(format!(
                    "its decoder {part} is not supported where it stands: tokens become text singly"
                ))
            })?;
        }
        Ok(it)
    }

    /// `None` if a part is of a kind that texts can't be decoded token by token with.
    fn add(&mut self, part: &Value, is_fused: &mut bool) -> Option<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match part["type"].as_str()? {
            "ByteLevel" => self.is_byte_level = true,
            "ByteFallback" => self.has_byte_tokens = true,
            "Fuse" => *is_fused = true,
            "Replace" if !*is_fused => {
                let from = text(&part["pattern"]["String"]).filter(|from| !from.is_empty())?;
                self.replacements.push((from, text(&part["content"])?));
            }
            "Metaspace" if !*is_fused => {
                self.replacements.push((text(&part["replacement"])?, " ".to_owned()));
                if part["prepend_scheme"] != "never" {
                    self.beginning = Beginning::FirstWithoutSpaces;
                }
            }
            "Strip" if *is_fused && part["content"] == " " && part["stop"] == 0 => {
                self.beginning =
                    Beginning::WithoutSpaces(usize::try_from(part["start"].as_u64()?).ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Appends the bytes of a token of this text.
    fn append(&self, text: &str, bytes: &mut Vec<u8>) {
        if self.words {
            bytes.push(b' ');
        }
        if self.has_byte_tokens
            && let Some(byte) = byte_of(text)
        {
            bytes.push(byte);
            return;
        }
        let mut text = text.to_owned();
        for (from, to) in &self.replacements {
            text = text.replace(from, to);
        }
        if self.is_byte_level {
            let start = bytes.len();
            for character in text.chars() {
                let Some(byte) = byte_level(character) else {
                    // As the library does: a token with such a character is text as it stands.
                    bytes.truncate(start);
                    bytes.extend_from_slice(text.as_bytes());
                    return;
                };
                bytes.push(byte);
            }
        } else {
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The byte that a character stands for in GPT-2's vocabulary: printable ones for themselves, the others, in their
/// order, for the characters from U+0100 on.
fn byte_level(character: char) -> Option<u8> {
    let is_printable = |code: u32| matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code if is_printable(code) => Some(code as u8),
        code @ 0x100..=0x143 => {
            (0..=u8::MAX).filter(|&byte| !is_printable(byte.into())).nth(code as usize - 0x100)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::{AddedToken, DecoderWrapper};

    use super::*;

    /// A tokenizer that has these tokens in this order, and this decoder.
    pub(crate) fn library_of(tokens: &[String], special: &[&str], decoder: &str) -> Library {
        let vocabulary =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
        let model =
            WordLevel::builder().vocab(vocabulary).unk_token(tokens[0].clone()).build().unwrap();
        let mut library = Library::new(model);
        let decoder: Option<DecoderWrapper> = serde_json::from_str(decoder).unwrap();
        library.with_decoder(decoder);
        library
            .add_special_tokens(special.iter().map(|&token| AddedToken::from(token, true)))
            .unwrap();
        library
    }

    pub(crate) const BYTE_LEVEL: &str = r#"{"type": "ByteLevel",
        "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    pub(crate) const LLAMA: &str = r#"{"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#;
    pub(crate) const GEMMA: &str = r#"{"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}]}"#;
    pub(crate) const METASPACE: &str =
        r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#;

    fn strings(tokens: &[&str]) -> Vec<String> {
        tokens.iter().map(|&token| token.to_owned()).collect()
    }

    /// The characters that GPT-2 has for bytes, made as its authors make them.
    pub(crate) fn byte_characters() -> Vec<char> {
        let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut more = 0;
        (0..256)
            .map(|byte| {
                let code = if printable(byte) { byte } else { 0x100 + more };
                more += u32::from(!printable(byte));
                char::from_u32(code).unwrap()
            })
            .collect()
    }

    #[test]
    fn characters_stand_for_bytes_as_in_gpt_2() {
        for (byte, character) in byte_characters().into_iter().enumerate() {
            assert_eq!(byte_level(character), Some(byte as u8));
        }
        assert_eq!(byte_level('\u{144}'), None);
        assert_eq!(byte_level(' '), None);
    }

    #[test]
    fn tokens_are_the_bytes_that_the_decoder_makes_of_them() {
        let tokens = strings(&["Ġwater", "Ã", "<|a b|>", "Ċ"]);
        let vocabulary =
            Vocabulary::of(&library_of(&tokens, &["<|end|>", "Ġwater"], BYTE_LEVEL)).unwrap();
        assert_eq!(vocabulary.len(), 5);
        assert_eq!(vocabulary.bytes(0), b" water");
        assert_eq!(vocabulary.bytes(1), [0xC3]);
        assert_eq!(vocabulary.bytes(2), b"<|a b|>");
        assert_eq!(vocabulary.bytes(3), b"\n");
        assert_eq!(vocabulary.bytes(4), b"<|end|>");
        assert_eq!(vocabulary.bytes(5), b"");
        assert!(vocabulary.is_special(4) && vocabulary.is_special(0) && !vocabulary.is_special(1));

        let tokens = strings(&["▁water", "<0xC3>", "<0xG3>", "a▁b"]);
        let vocabulary = Vocabulary::of(&library_of(&tokens, &[], LLAMA)).unwrap();
        assert_eq!(vocabulary.bytes(0), b" water");
        assert_eq!(vocabulary.bytes(1), [0xC3]);
        assert_eq!(vocabulary.bytes(2), b"<0xG3>");
        assert_eq!(vocabulary.bytes(3), b"a b");
        assert_eq!(vocabulary.beginning, Beginning::WithoutSpaces(1));
    }

    #[test]
    fn decoders_that_need_neighbours_are_refused() {
        for decoder in [
            r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###,
            r#"{"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "}"#,
            r#"{"type": "Strip", "content": " ", "start": 1, "stop": 0}"#,
        ] {
            let error = Vocabulary::of(&library_of(&strings(&["a"]), &[], decoder)).unwrap_err();
            assert!(error.to_string().contains("is not supported"), "{error}");
        }
    }
}
