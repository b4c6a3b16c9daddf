//! The architectures that the engine runs: which family each belongs to, and how it becomes layers.

use std::path::Path;

use candle_core::Device;

use crate::encode::layers::Layers;
use crate::error::EngineError;
use crate::families::deberta::{Deberta, DebertaConfig};
use crate::families::decoder_config::{DECODERS, DecoderConfig};
use crate::families::decoder_encoder::DecoderEncoder;
use crate::families::gte;
use crate::families::modernbert::{ModernBert, ModernBertConfig};
use crate::families::named::Named;
use crate::families::noop::{Noop, NoopConfig};
use crate::families::post_norm::PostNorm;
use crate::families::post_norm_config::PostNormConfig;
use crate::load::config::common;
use crate::load::fields::Fields;
use crate::load::files::read;
use crate::load::options::DType;
use crate::load::safetensors::Weights;
use crate::load::sizes::Sizes;

/// The architectures that the engine runs, as `model_type` names them.
const ARCHITECTURES: &str = "bert (also with ALiBi, as Jina's), roberta, xlm-roberta, camembert, distilbert, mpnet, \
                             modernbert, deberta-v2, nomic_bert, new and gte (GTE's), forebay-noop, and the decoders \
                             llama, mistral, qwen2, qwen3, smollm3, gemma3_text, phi3";

/// The most tokens of a text that a decoder embeds or scores.
const CONTEXT_MAX: usize = 32_768;

/// An architecture with a model's configuration.
#[derive(Debug)]
pub(crate) enum Architecture {
    PostNorm(PostNormConfig),
    ModernBert(ModernBertConfig),
    Deberta(DebertaConfig),
    Decoder(Box<DecoderConfig>),
    Noop(NoopConfig),
}

impl Architecture {
    /// Reads the architecture of a `config.json`, with the fields that are read so far and the classes that it names.
    pub(crate) fn read(path: &Path) -> Result<(Self, Fields, Vec<String>), EngineError> {
        let mut fields = Fields::parse(path, &read(path)?)?;
        let classes: Vec<String> = fields.or("architectures", Vec::new())?;
        let architecture = Self::parse(&mut fields, &classes)?;
        Ok((architecture, fields, classes))
    }

    /// Reads the fields of `config.json` that shape the computation; a family or a setting that cannot be honoured is
    /// refused by name. `classes` is what the configuration lists as `architectures`.
    fn parse(fields: &mut Fields, classes: &[String]) -> Result<Self, EngineError> {
        // Old configurations name only the class.
        let guess = || classes.iter().any(|name| name == "BertModel").then(|| "bert".to_owned());
        let named: Option<String> = fields.get("model_type")?;
        let model_type = named.or_else(guess).unwrap_or_else(|| format!("{classes:?}"));
        if DECODERS.contains(&model_type.as_str()) {
            check_code(fields)?;
            return Ok(Self::Decoder(Box::new(DecoderConfig::parse(&model_type, fields)?)));
        }
        common(fields)?;
        match model_type.as_str() {
            "modernbert" => ModernBertConfig::parse(fields).map(Self::ModernBert),
            "deberta-v2" => DebertaConfig::parse(fields).map(Self::Deberta),
            "new" => gte::parse("new", fields).map(Self::PostNorm),
            "gte" => gte::parse("gte", fields).map(Self::PostNorm),
            "forebay-noop" => NoopConfig::parse(fields).map(Self::Noop),
            other => match PostNormConfig::parse(other, fields)? {
                Some(config) => Ok(Self::PostNorm(config)),
                None => Err(fields.not_supported("model_type", &model_type, &ARCHITECTURES)),
            },
        }
    }

    /// Whether a tokenizer of this family gives the type of each token, where its configuration doesn't say.
    pub(crate) fn gives_types(&self) -> bool {
        match self {
            Self::PostNorm(config) => matches!(config.name, "bert" | "nomic_bert"),
            Self::Deberta(_) => true,
            Self::ModernBert(_) | Self::Decoder(_) | Self::Noop(_) => false,
        }
    }

    /// The architecture's name as in `config.json`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::PostNorm(config) => config.name,
            Self::ModernBert(_) => "modernbert",
            Self::Deberta(_) => "deberta-v2",
            Self::Decoder(config) => config.name,
            Self::Noop(_) => "forebay-noop",
        }
    }

    /// The sizes that encoders and buffers are made by.
    pub(crate) fn sizes(&self) -> Sizes {
        match self {
            Self::PostNorm(config) => config.sizes,
            Self::ModernBert(config) => config.sizes(),
            Self::Deberta(config) => config.sizes(),
            Self::Decoder(config) => Sizes {
                vocabulary: config.vocabulary,
                hidden: config.hidden,
                inner: config.inner,
                positions: config.positions_meant().min(CONTEXT_MAX),
                types: 0,
            },
            Self::Noop(config) => config.sizes(),
        }
    }

    /// Whether f32 is the only number type that it computes in.
    pub(crate) fn is_f32_only(&self) -> bool {
        matches!(self, Self::Deberta(_) | Self::Noop(_))
    }

    /// Whether the processor is the only device that computes it.
    pub(crate) fn is_cpu_only(&self) -> bool {
        matches!(self, Self::Decoder(_))
    }

    /// Whether its layers compute nothing: then threads have nothing to share, and waking them takes most of the time.
    pub(crate) fn computes_nothing(&self) -> bool {
        matches!(self, Self::Noop(_))
    }

    /// How many tokens behind the last one that attention sees may stand without being seen; `None` where it always
    /// sees all of them.
    pub(crate) fn window_unseen(&self) -> Option<usize> {
        match self {
            Self::PostNorm(_) => Some(usize::MAX),
            Self::ModernBert(config) => Some(config.window()),
            Self::Deberta(_) | Self::Decoder(_) | Self::Noop(_) => None,
        }
    }

    /// The smallest variance of the norm in a classification head, and whether that norm has a shift.
    pub(crate) fn norm_of_head(&self) -> (f64, bool) {
        match self {
            Self::ModernBert(config) => config.norm(),
            _ => (0.0, false), // no other family has one
        }
    }

    /// Values of an attention head.
    #[cfg(feature = "cuda")]
    pub(crate) fn head_size(&self) -> usize {
        match self {
            Self::PostNorm(config) => config.sizes.hidden / config.heads,
            Self::ModernBert(config) => config.head_size(),
            Self::Deberta(_) | Self::Decoder(_) | Self::Noop(_) => 0, // the processor's alone
        }
    }

    /// An upper bound of the memory, in bytes, that a token of a batch takes while it is computed.
    pub(crate) fn bytes_per_token(&self, dtype: DType) -> usize {
        let scores = match self {
            Self::Decoder(config) => return config.encoder_bytes_per_token(dtype.tensor()),
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
            Self::Decoder(config) => {
                let positions = self.sizes().positions;
                Box::new(DecoderEncoder::load(config, &open()?, dtype, positions)?)
            }
            Self::Noop(config) => Box::new(Noop::new(config)),
        })
    }
}

/// Refuses a decoder that brings its own code, unless its configuration says what matters of it here: which tokens see
/// which. In transformers' own code a decoder's see none after them; GTE's code for Qwen2 lets them see all.
fn check_code(fields: &mut Fields) -> Result<(), EngineError> {
    let code: serde_json::Map<String, serde_json::Value> =
        fields.or("auto_map", serde_json::Map::new())?;
    match code.get("AutoModel") {
        Some(class) if !fields.has("is_causal") => {
            let supported = "the library's own code; where `is_causal` is beside it (false if tokens see those after \
                             them, as in GTE's Qwen2), that is computed instead";
            Err(fields.not_supported("auto_map", &format!("AutoModel: {class}"), &supported))
        }
        _ => Ok(()),
    }
}
