//! The architectures that the engine runs: which family each belongs to, and how it becomes layers.

use std::path::Path;

use candle_core::Device;
use serde::Deserialize;

use crate::encode::layers::Layers;
use crate::error::EngineError;
use crate::families::deberta::{Deberta, DebertaConfig};
use crate::families::modernbert::{ModernBert, ModernBertConfig};
use crate::families::named::Named;
use crate::families::noop::{Noop, NoopConfig};
use crate::families::post_norm::PostNorm;
use crate::families::post_norm_config::PostNormConfig;
use crate::load::config::from_json;
use crate::load::options::DType;
use crate::load::safetensors::Weights;
use crate::load::sizes::Sizes;

/// The architectures that the engine runs, as `model_type` names them.
const ARCHITECTURES: &str = "bert (also with ALiBi, as Jina's), roberta, xlm-roberta, camembert, distilbert, mpnet, \
                             modernbert, deberta-v2, nomic_bert, forebay-noop";

/// An architecture with a model's configuration.
#[derive(Debug)]
pub(crate) enum Architecture {
    PostNorm(PostNormConfig),
    ModernBert(ModernBertConfig),
    Deberta(DebertaConfig),
    Noop(NoopConfig),
}

/// The fields of `config.json` that name the architecture.
#[derive(Deserialize)]
struct ModelType {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
}

impl Architecture {
    /// Reads `config.json`; a family or a setting that cannot be honoured is refused by name.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        let kind: ModelType = from_json(path, json)?;
        let model_type = kind.model_type.clone().unwrap_or_else(|| kind.guess());
        match model_type.as_str() {
            "modernbert" => ModernBertConfig::parse(path, json).map(Self::ModernBert),
            "deberta-v2" => DebertaConfig::parse(path, json).map(Self::Deberta),
            "forebay-noop" => NoopConfig::parse(path, json).map(Self::Noop),
            other => match PostNormConfig::parse(other, path, json)? {
                Some(config) => Ok(Self::PostNorm(config)),
                None => Err(EngineError::NotSupported {
                    path: path.to_owned(),
                    field: "model_type",
                    value: kind.name(),
                    supported: ARCHITECTURES,
                }),
            },
        }
    }

    /// The architecture's name as in `config.json`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::PostNorm(config) => config.name,
            Self::ModernBert(_) => "modernbert",
            Self::Deberta(_) => "deberta-v2",
            Self::Noop(_) => "forebay-noop",
        }
    }

    /// The sizes that encoders and buffers are made by.
    pub(crate) fn sizes(&self) -> Sizes {
        match self {
            Self::PostNorm(config) => config.sizes,
            Self::ModernBert(config) => config.sizes(),
            Self::Deberta(config) => config.sizes(),
            Self::Noop(config) => config.sizes(),
        }
    }

    /// Whether f32 is the only number type that it computes in.
    pub(crate) fn is_f32_only(&self) -> bool {
        matches!(self, Self::Deberta(_) | Self::Noop(_))
    }

    /// Values of an attention head.
    #[cfg(feature = "cuda")]
    pub(crate) fn head_size(&self) -> usize {
        match self {
            Self::PostNorm(config) => config.sizes.hidden / config.heads,
            Self::ModernBert(config) => config.head_size(),
            Self::Deberta(_) | Self::Noop(_) => 0, // the processor's alone
        }
    }

    /// An upper bound of the memory, in bytes, that a token of a batch takes while it is computed.
    pub(crate) fn bytes_per_token(&self, dtype: DType) -> usize {
        let scores = match self {
            Self::Deberta(config) => config.score_bytes_per_token(),
            _ => 0, // a few queries' at a time
        };
        self.sizes().bytes_per_token(dtype).saturating_add(scores)
    }

    /// Loads the layers' weights, by their names in transformers, in a number type and onto a device. `open` opens the
    /// weights; it is not called for an architecture that has none.
    pub(crate) fn layers(
        &self,
        open: impl FnOnce() -> Result<Weights, EngineError>,
        dtype: DType,
        device: &Device,
    ) -> Result<Box<dyn Layers>, EngineError> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        Ok(match self {
            Self::PostNorm(config) => {
                let weights = open()?;
                let named = Named::new(&weights, config.naming.prefixes, WORDS, dtype, device);
                Box::new(PostNorm::load(config, &named)?)
            }
            Self::ModernBert(config) => {
                let weights = open()?;
                let words = "embeddings.tok_embeddings.weight";
                let named = Named::new(&weights, &["model."], words, dtype, device);
                Box::new(ModernBert::load(config, &named)?)
            }
            Self::Deberta(config) => {
                let weights = open()?;
                let named = Named::new(&weights, &["deberta."], WORDS, dtype, device);
                Box::new(Deberta::load(config, &named)?)
            }
            Self::Noop(config) => Box::new(Noop::new(config)),
        })
    }
}

impl ModelType {
    /// Old configurations name only the class.
    fn guess(&self) -> String {
        let bert = self.architectures.iter().any(|name| name == "BertModel");
        if bert { "bert".to_owned() } else { String::new() }
    }

    fn name(&self) -> String {
        self.model_type.clone().unwrap_or_else(|| format!("{:?}", self.architectures))
    }
}
