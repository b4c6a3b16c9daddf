//! A tokenizer from the settings of a GGUF: the one that the model's `tokenizer.json` makes.
//!
//! A file has the vocabulary, the merges or the scores, and the name of how texts are split before them. What it lacks
//! is known by that name (`pre`) or follows from the vocabulary (`sentence_piece`).

mod pre;
mod sentence_piece;
mod words;

use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};

use crate::error::EngineError;
use crate::load::gguf::GgufModel;
use crate::load::gguf::generation::{adds_bos, token_id};
use crate::tokenizer::contained;
use crate::tokenizer::gguf::words::Words;

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
