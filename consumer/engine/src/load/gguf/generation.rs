//! Settings of generation in a GGUF.

use crate::error::EngineError;
use crate::load::gguf::metadata::Metadata;

/// The kinds of tokens in `tokenizer.ggml.token_type` that are more than ordinary text.
pub(crate) const UNKNOWN: i64 = 2;
pub(crate) const CONTROL: i64 = 3;
pub(crate) const USER_DEFINED: i64 = 4;
pub(crate) const BYTE: i64 = 6;

/// The most words of a vocabulary; the largest that is known has 262,144.
pub(crate) const WORDS_MAX: usize = 1 << 21;

/// Control tokens that end an answer in every model that has them. Files name one end at most two, and models end
/// their answers with others too.
const ENDS: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|return|>",
    "<|call|>",
];

/// Settings of generation that a GGUF holds beside its model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GenerationFacts {
    /// Tokens that end a text; the one that the file names first.
    pub(crate) eos: Vec<u32>,
    /// The token that begins a text.
    pub(crate) bos: Option<u32>,
    /// Whether the tokenizer puts it before a text. A chat template writes it itself.
    pub(crate) adds_bos: bool,
    /// The token that fills up a batch, which is never to be taken for an end.
    pub(crate) pad: Option<u32>,
    /// The template of a chat, in Jinja.
    pub(crate) chat_template: Option<String>,
}

impl GenerationFacts {
    /// Reads them.
    pub(crate) fn read(metadata: &Metadata) -> Result<Self, EngineError> {
        let id = |name: &str| token_id(metadata, name);
        let mut eos = Vec::new();
        for name in ["eos_token_id", "eot_token_id", "eom_token_id"] {
            eos.extend(id(name)?.filter(|id| !eos.contains(id)));
        }
        let tokens = metadata.texts("tokenizer.ggml.tokens", WORDS_MAX)?.unwrap_or_default();
        let kinds = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        for (at, token) in tokens.iter().enumerate() {
            let is_control = kinds.get(at) == Some(&CONTROL);
            if is_control && ENDS.contains(token) && !eos.contains(&(at as u32)) {
                eos.push(at as u32);
            }
        }
        Ok(Self {
            eos,
            bos: id("bos_token_id")?,
            adds_bos: adds_bos(metadata)?,
            pad: id("padding_token_id")?,
            chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        })
    }
}

/// A token's id among the settings, which is one of the vocabulary.
pub(crate) fn token_id(metadata: &Metadata, name: &str) -> Result<Option<u32>, EngineError> {
    let key = format!("tokenizer.ggml.{name}");
    let Some(last) = metadata.texts_len("tokenizer.ggml.tokens").and_then(|len| len.checked_sub(1))
    else {
        return Ok(None);
    };
    // Files without such a token may say the largest number.
    if metadata.size(&key, u32::MAX as usize)? == Some(u32::MAX as usize) {
        return Ok(None);
    }
    Ok(metadata.size(&key, last)?.map(|id| id as u32))
}

/// Whether the first token is put before texts. Files that don't say it mean what their tokenizer does: those with
/// `SentencePiece`'s vocabularies and Llama 3's and Mistral's do.
pub(crate) fn adds_bos(metadata: &Metadata) -> Result<bool, EngineError> {
    if let Some(adds) = metadata.bool("tokenizer.ggml.add_bos_token")? {
        return Ok(adds);
    }
    let model = metadata.text("tokenizer.ggml.model")?;
    let pre = metadata.text("tokenizer.ggml.pre")?;
    let by_pre = matches!(pre, Some("llama3" | "llama-v3" | "llama-bpe" | "tekken"));
    Ok(model == Some("llama") || by_pre)
}
