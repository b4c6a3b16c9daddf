//! The encoder families: which there are, what each reads from `config.json`, and how it becomes layers.

mod deberta;
mod modernbert;
mod named;
mod noop;
mod post_norm;
mod post_norm_config;
mod relative;

use std::path::Path;

use candle_core::{Device, Tensor};
use forebay_kernels::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::named::Named;
use crate::weights::Weights;
use crate::workspace::{Sequences, Workspace};
use crate::{DType, EngineError};

/// The families that the engine runs, as `model_type` names them.
const ARCHITECTURES: &str = "bert (also with ALiBi, as Jina's), roberta, xlm-roberta, camembert, distilbert, mpnet, \
                             modernbert, deberta-v2, nomic_bert, forebay-noop";

/// No size of a model comes near it, and three times the square of it is no overflow.
const SIZE_MAX: usize = 1 << 24;
/// Four times what the encoders with the most positions read.
const POSITIONS_MAX: usize = 32_768;
/// Four times the largest in use.
const HEAD_SIZE_MAX: usize = 1_024;

/// What all families have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    /// The most tokens of a sequence.
    pub(crate) positions: usize,
    /// Rows of the type table; 0 where there is none.
    pub(crate) types: usize,
}

impl Sizes {
    /// Refuses sizes that nothing can be computed with, or that no model has: tables are made by some of them.
    fn check(self, path: &Path, heads: usize) -> Result<Self, EngineError> {
        let sizes = [self.vocabulary, self.hidden, self.inner, self.positions, heads];
        let problem = if sizes.contains(&0) {
            "a size is zero".to_owned()
        } else if !self.hidden.is_multiple_of(heads) {
            format!("the hidden size {} is not a multiple of {heads} heads", self.hidden)
        } else if sizes.iter().any(|&size| size > SIZE_MAX) || self.types > SIZE_MAX {
            format!("a size is above {SIZE_MAX}")
        } else if self.positions > POSITIONS_MAX {
            format!("{} positions; at most {POSITIONS_MAX} are supported", self.positions)
        } else if self.hidden / heads > HEAD_SIZE_MAX {
            format!("heads of {}; at most {HEAD_SIZE_MAX} are supported", self.hidden / heads)
        } else {
            return Ok(self);
        };
        Err(EngineError::Config { path: path.to_owned(), problem })
    }

    /// An upper bound of the memory that a token takes while it is computed: of one layer the input, the three
    /// projections, the context, the sum, a projection, and the wide inner state before and after a gate.
    pub(crate) fn bytes_per_token(self, dtype: DType) -> usize {
        let values = self.hidden.saturating_mul(8).saturating_add(self.inner.saturating_mul(3));
        values.saturating_mul(dtype.tensor().size_in_bytes())
    }
}

/// A model's layers, from token ids to the last hidden state.
pub(crate) trait Layers: Send + Sync {
    /// `[tokens, hidden]`, in a buffer of `space`.
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError>;
}

/// A family with a model's configuration.
#[derive(Debug)]
pub(crate) enum Architecture {
    PostNorm(post_norm_config::PostNormConfig),
    ModernBert(modernbert::ModernBertConfig),
    Deberta(deberta::DebertaConfig),
    Noop(noop::NoopConfig),
}

/// The fields that name the family.
#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
}

impl Architecture {
    /// Reads `config.json`; a family or a setting that cannot be honoured is refused by name.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        let kind: Kind = from_json(path, json)?;
        let model_type = kind.model_type.clone().unwrap_or_else(|| kind.guess());
        match model_type.as_str() {
            "modernbert" => modernbert::ModernBertConfig::parse(path, json).map(Self::ModernBert),
            "deberta-v2" => deberta::DebertaConfig::parse(path, json).map(Self::Deberta),
            "forebay-noop" => noop::NoopConfig::parse(path, json).map(Self::Noop),
            other => match post_norm_config::PostNormConfig::parse(other, path, json)? {
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

    /// Its name as in `config.json`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::PostNorm(config) => config.name,
            Self::ModernBert(_) => "modernbert",
            Self::Deberta(_) => "deberta-v2",
            Self::Noop(_) => "forebay-noop",
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        match self {
            Self::PostNorm(config) => config.sizes,
            Self::ModernBert(config) => config.sizes(),
            Self::Deberta(config) => config.sizes(),
            Self::Noop(config) => config.sizes(),
        }
    }

    /// Whether it computes in nothing but f32.
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

    /// An upper bound of the memory that a token of a batch takes while it is computed.
    pub(crate) fn bytes_per_token(&self, dtype: DType) -> usize {
        let scores = match self {
            Self::Deberta(config) => config.score_bytes_per_token(),
            _ => 0, // a few queries' at a time
        };
        self.sizes().bytes_per_token(dtype).saturating_add(scores)
    }

    /// Takes the layers' weights, by their names in transformers, in a number type and onto a device; `open` opens them,
    /// where there are any.
    pub(crate) fn layers(
        &self,
        open: impl FnOnce() -> Result<Weights, EngineError>,
        place: (DType, &Device),
    ) -> Result<Box<dyn Layers>, EngineError> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        Ok(match self {
            Self::PostNorm(config) => {
                let weights = open()?;
                let named = Named::new(&weights, config.naming.prefixes, WORDS, place);
                Box::new(post_norm::PostNorm::load(config, &named)?)
            }
            Self::ModernBert(config) => {
                let (weights, words) = (open()?, "embeddings.tok_embeddings.weight");
                let named = Named::new(&weights, &["model."], words, place);
                Box::new(modernbert::ModernBert::load(config, &named)?)
            }
            Self::Deberta(config) => {
                let weights = open()?;
                let named = Named::new(&weights, &["deberta."], WORDS, place);
                Box::new(deberta::Deberta::load(config, &named)?)
            }
            Self::Noop(config) => Box::new(noop::Noop::new(config)),
        })
    }
}

impl Kind {
    /// Old configurations name only the class.
    fn guess(&self) -> String {
        let bert = self.architectures.iter().any(|name| name == "BertModel");
        if bert { "bert".to_owned() } else { String::new() }
    }

    fn name(&self) -> String {
        self.model_type.clone().unwrap_or_else(|| format!("{:?}", self.architectures))
    }
}

fn from_json<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(json)
        .map_err(|source| EngineError::Json { path: path.to_owned(), source })
}

/// Refuses a value that is not the one that is supported.
fn expect(
    path: &Path,
    field: &'static str,
    value: &str,
    supported: &'static str,
) -> Result<(), EngineError> {
    if value == supported {
        return Ok(());
    }
    let (path, value) = (path.to_owned(), value.to_owned());
    Err(EngineError::NotSupported { path, field, value, supported })
}

/// An activation by its name in transformers.
pub(crate) fn activation(
    path: &Path,
    field: &'static str,
    name: &str,
) -> Result<Activation, EngineError> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        _ => Err(EngineError::NotSupported {
            path: path.to_owned(),
            field,
            value: name.to_owned(),
            supported: "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh",
        }),
    }
}
