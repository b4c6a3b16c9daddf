//! A tokenizer from the settings of a GGUF: the one that the model's `tokenizer.json` makes.
//!
//! A file has the vocabulary, the merges or the scores, and the name of how texts are split before them. What it lacks
//! is known by that name (`pre`) or follows from the vocabulary (`sentence_piece`).

mod pre;
mod sentence_piece;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{AddedToken, Tokenizer};

use crate::error::EngineError;
use crate::load::gguf::GgufModel;
use crate::load::gguf::generation::{CONTROL, USER_DEFINED, WORDS_MAX, adds_bos, token_id};
use crate::load::gguf::metadata::Metadata;
use crate::tokenizer::contained;

/// The most merges of two words.
const MERGES_MAX: usize = 1 << 22;

/// A file's words with their types.
pub(super) struct Words<'a> {
    metadata: &'a Metadata,
    texts: Vec<&'a str>,
    /// The type of each, which may not be there.
    kinds: Vec<i64>,
}

impl<'a> Words<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, EngineError> {
        let texts = metadata.texts("tokenizer.ggml.tokens", WORDS_MAX)?;
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
            return Err(metadata.problem("tokenizer.ggml.tokens is missing".to_owned()));
        };
        let kinds = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        let words = texts.len();
        if !kinds.is_empty() && kinds.len() != words {
            let kinds = kinds.len();
            return Err(metadata.problem(format!(
                "tokenizer.ggml.tokens has {words} words, tokenizer.ggml.token_type {kinds}"
            )));
        }
        Ok(Self { metadata, texts, kinds })
    }

    fn kind(&self, id: usize) -> i64 {
        self.kinds.get(id).copied().unwrap_or_default()
    }

    fn vocabulary(&self) -> Vocab {
        self.texts.iter().zip(0..).map(|(text, id)| ((*text).to_owned(), id)).collect()
    }

    /// The merges that the file lists.
    fn merges(&self) -> Result<Option<Merges>, EngineError> {
        let key = "tokenizer.ggml.merges";
        let Some(lines) = self.metadata.texts(key, MERGES_MAX)? else { return Ok(None) };
        let pair = |line: &&str| {
            // A word may begin with a space, so that it isn't what separates them.
            let space = line.char_indices().skip(1).find(|(_, c)| *c == ' ');
            let (at, _) = space.ok_or_else(|| {
                self.metadata.problem(format!("{key} has {line:?}, expected two words"))
            })?;
            Ok((line[..at].to_owned(), line[at + 1..].to_owned()))
        };
        lines.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }

    /// Tokens that are found in texts before anything else: control tokens, which aren't text, and the user's. One
    /// that the tokenizer knows by another spelling, as it does Gemma's spaces, is left to its merges.
    fn added(&self, tokenizer: &Tokenizer) -> Vec<AddedToken> {
        let all = self.texts.iter().enumerate().map(|(id, text)| (id, *text, self.kind(id)));
        all.filter(|(_, text, kind)| matches!(*kind, CONTROL | USER_DEFINED) && !text.is_empty())
            .filter(|(id, text, _)| tokenizer.token_to_id(text) == Some(*id as u32))
            .map(|(_, text, kind)| AddedToken::from(text, kind == CONTROL).normalized(false))
            .collect()
    }
}

impl GgufModel {
    /// The tokenizer of the file. It puts special tokens before and behind texts where the file says so.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, EngineError> {
        let metadata = self.metadata();
        let words = Words::of(metadata)?;
        let listed = words.merges()?;
        let around = around(&words)?;
        let problem = |problem| EngineError::Tokenizer {
            problem: format!("{}: {problem}", self.path().display()),
        };
        let mut tokenizer = match metadata.required_text("tokenizer.ggml.model")? {
            "gpt2" => {
                let split = pre::Split::of(metadata)?;
                contained(|| byte_level(&words, listed.unwrap_or_default(), &split))
            }
            "llama" => {
                let way = sentence_piece::Way::of(metadata)?;
                let merges = match listed {
                    Some(merges) => merges,
                    None => sentence_piece::merges(&words, &way)?,
                };
                contained(|| sentence_piece::tokenizer(&words, merges, &way))
            }
            other => {
                return Err(metadata.problem(format!(
                    "tokenizer.ggml.model = {other} is not supported; supported: gpt2, llama"
                )));
            }
        }
        .map_err(problem)?;
        contained(|| {
            let added = words.added(&tokenizer);
            tokenizer.add_tokens(added)?;
            tokenizer.with_post_processor(around);
            Ok(tokenizer)
        })
        .map_err(problem)
    }
}

/// A tokenizer of bytes that are spelt as printable characters.
fn byte_level(
    words: &Words<'_>,
    merges: Merges,
    split: &pre::Split,
) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(words.vocabulary(), merges)
        .ignore_merges(split.whole_words)
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    split.put_into(&mut tokenizer)?;
    Ok(tokenizer)
}

/// The first and the last token, where texts get them.
fn around(words: &Words<'_>) -> Result<Option<TemplateProcessing>, EngineError> {
    let metadata = words.metadata;
    let problem = |problem: String| metadata.problem(format!("special tokens: {problem}"));
    let mut pieces = Vec::new();
    let mut specials = Vec::new();
    let mut add = |pieces: &mut Vec<&'static str>, name| -> Result<(), EngineError> {
        let Some(id) = token_id(metadata, name)? else { return Ok(()) };
        // Pieces go by the names of settings: a token's own text may be one that templates give a meaning.
        let text = words.texts[id as usize].to_owned();
        let special = SpecialToken::new(name.to_owned(), vec![id], vec![text]);
        specials.push(special.map_err(|error| problem(error.to_string()))?);
        pieces.push(name);
        Ok(())
    };
    if adds_bos(metadata)? {
        add(&mut pieces, "bos_token_id")?;
    }
    pieces.push("$A");
    if metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false) {
        add(&mut pieces, "eos_token_id")?;
    }
    if specials.is_empty() {
        return Ok(None);
    }
    TemplateProcessing::builder()
        .try_single(pieces)
        .map_err(problem)?
        .special_tokens(specials)
        .build()
        .map(Some)
        .map_err(|error| problem(error.to_string()))
}

#[cfg(test)]
mod tests;
