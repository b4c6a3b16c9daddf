//! `SentencePiece`'s vocabularies: words with scores, of which merges follow, and bytes for characters that no word
//! has.

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{DecoderWrapper, NormalizerWrapper, Tokenizer};

use crate::error::EngineError;
use crate::load::gguf::generation::{BYTE, CONTROL, UNKNOWN, token_id};
use crate::load::gguf::metadata::Metadata;
use crate::tokenizer::gguf::words::Words;

/// The character that stands for a space.
const SPACE: &str = "\u{2581}";
/// The longest word that merges are made for, in characters; those that are known have at most 48.
const CHARACTERS_MAX: usize = 128;

/// The differences among `SentencePiece`'s tokenizers.
pub(super) struct Way {
    /// Whether a space goes before texts.
    space_before: bool,
    /// Whether merges go by the order of words instead of their scores, as Gemma's do.
    by_order: bool,
}

impl Way {
    pub(super) fn of(metadata: &Metadata) -> Result<Self, EngineError> {
        let by_order = metadata.required_text("general.architecture")?.starts_with("gemma");
        let space_before = metadata.bool("tokenizer.ggml.add_space_prefix")?;
        Ok(Self { space_before: space_before.unwrap_or(!by_order), by_order })
    }
}

/// A word as the vocabulary of transformers has it: Gemma's runs of spaces are written with spaces in a file.
fn spelt(word: &str, way: &Way) -> String {
    let is_spaces = way.by_order && !word.is_empty() && word.bytes().all(|byte| byte == b' ');
    if is_spaces { SPACE.repeat(word.len()) } else { word.to_owned() }
}

/// The merges that a vocabulary implies: each word of two others, the best word first, and of a word's those of the
/// longest first part.
pub(super) fn merges(words: &Words<'_>, way: &Way) -> Result<Merges, EngineError> {
    let metadata = words.metadata;
    let scores = if way.by_order { None } else { metadata.floats("tokenizer.ggml.scores")? };
    if let Some(scores) = scores.as_ref().filter(|scores| scores.len() != words.texts.len()) {
        let problem = format!(
            "tokenizer.ggml.scores has {} scores, expected {}",
            scores.len(),
            words.texts.len()
        );
        return Err(metadata.problem(problem));
    }
    let spellings: Vec<String> = words.texts.iter().map(|word| spelt(word, way)).collect();
    let ids: HashMap<&str, usize> = spellings.iter().map(String::as_str).zip(0..).collect();
    let mut found = Vec::new();
    for (id, word) in spellings.iter().enumerate() {
        // Texts never become control tokens and bytes by merges.
        if matches!(words.kind(id), CONTROL | UNKNOWN | BYTE) {
            continue;
        }
        let characters = word.chars().count();
        if characters > CHARACTERS_MAX {
            let problem = format!("tokenizer.ggml.tokens has a word of {characters} characters");
            return Err(metadata.problem(problem));
        }
        let score = scores.as_ref().map_or(-(id as f64), |scores| scores[id]);
        let mut of_word = Vec::new();
        for (at, (byte, _)) in word.char_indices().enumerate().skip(1) {
            if let (Some(left), Some(right)) = (ids.get(&word[..byte]), ids.get(&word[byte..])) {
                of_word.push((score, at, characters - at, *left, *right));
            }
        }
        of_word.sort_by_key(|&(_, _, _, left, right)| (left, right));
        found.extend(of_word);
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    let pair = |&(_, _, _, left, right): &(f64, usize, usize, usize, usize)| {
        (spellings[left].clone(), spellings[right].clone())
    };
    Ok(found.iter().map(pair).collect())
}

/// The tokenizer of a vocabulary and its merges.
pub(super) fn tokenizer(
    words: &Words<'_>,
    merges: Merges,
    way: &Way,
) -> tokenizers::Result<Tokenizer> {
    let vocabulary = words.texts.iter().zip(0..).map(|(word, id)| (spelt(word, way), id)).collect();
    let mut model = BPE::builder()
        .vocab_and_merges::<tokenizers::models::bpe::Vocab>(vocabulary, merges)
        .byte_fallback(true)
        .fuse_unk(true);
    if let Ok(Some(unknown)) = token_id(words.metadata, "unknown_token_id") {
        model = model.unk_token(words.texts[unknown as usize].to_owned());
    }
    let mut tokenizer = Tokenizer::new(model.build()?);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ")?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    if way.space_before {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", SPACE)?.into());
    tokenizer.with_normalizer(Some(Sequence::new(normalizers)))?;
    tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(tokenizer)
}
