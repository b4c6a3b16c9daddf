//! `tokenizer_config.json`: what transformers says of a tokenizer beside `tokenizer.json`.

use std::path::Path;

use serde::Deserialize;

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};

/// The settings that change a text's tokens. Its other fields say how the tokenizer was made, which `tokenizer.json`
/// has as its result.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// The most tokens of a text.
    pub(crate) tokens_max: Option<usize>,
    /// Whether a long text keeps its end; `None` where it is not said.
    pub(crate) keeps_end: Option<bool>,
    /// Whether the model gets the type of each token; `None` where it is not said.
    pub(crate) gives_types: Option<bool>,
    /// Whether it says that texts end in the end of text. Only `tokenizer.json` decides that, as in transformers 5.
    pub(crate) says_end: bool,
    /// The token that stands for a word which a language model has to find.
    pub(crate) mask: Option<String>,
}

#[derive(Default, Deserialize)]
struct File {
    /// A huge float when unset.
    model_max_length: Option<f64>,
    truncation_side: Option<String>,
    model_input_names: Option<Vec<String>>,
    tokenizer_class: Option<String>,
    add_eos_token: Option<bool>,
    mask_token: Option<Token>,
}

/// A token by itself, or with how it is split off.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Plain(String),
    Added { content: String },
}

impl TokenizerConfig {
    /// Reads it from a transformer's folder, where there is one.
    pub(crate) fn read(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("tokenizer_config.json");
        let Some(json) = read_if_there(&path)? else { return Ok(Self::default()) };
        let file: File = from_json(&path, &json)?;
        let keeps_end = match file.truncation_side.as_deref() {
            None => None,
            Some("left") => Some(true),
            Some("right") => Some(false),
            Some(other) => {
                return Err(EngineError::NotSupported {
                    path,
                    field: "truncation_side",
                    value: other.to_owned(),
                    supported: "left, right".to_owned(),
                });
            }
        };
        let names = file.model_input_names.as_ref();
        let listed = names.map(|names| names.iter().any(|name| name == "token_type_ids"));
        Ok(Self {
            // The cast saturates, which is what a huge "unset" should do.
            tokens_max: file.model_max_length.map(|length| length as usize),
            keeps_end,
            says_end: file.add_eos_token == Some(true),
            gives_types: listed.or_else(|| by_class(file.tokenizer_class.as_deref()?)),
            mask: file
                .mask_token
                .map(|(Token::Plain(token) | Token::Added { content: token })| token),
        })
    }
}

/// Whether a tokenizer of that class in transformers gives types, where its configuration doesn't list what it gives.
/// Those of a family are known; the class that stands for any `tokenizer.json` gives none since transformers 5.
fn by_class(class: &str) -> Option<bool> {
    match class.trim_end_matches("Fast") {
        "PreTrainedTokenizer" | "TokenizersBackend" => Some(false),
        _ => None,
    }
}
