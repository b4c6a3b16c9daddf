//! Heads of masked language models, which sparse encoders end in: the names of their tensors in each family.

use std::path::Path;

use candle_core::{DType, Tensor};
use forebay_kernels::{Activation, LayerNorm, Linear};
use serde::Deserialize;

use crate::encode::splade::{Splade, WORDS_AT_ONCE};
use crate::error::EngineError;
use crate::load::config::activation;
use crate::load::per_token::SpladePooling;
use crate::load::safetensors::Weights;
use crate::load::sizes::Sizes;

/// The fields of `config.json` that shape the head.
#[derive(Debug, Deserialize)]
pub(crate) struct MaskedLmConfig {
    #[serde(alias = "activation")]
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    classifier_activation: Option<String>,
    #[serde(default)]
    classifier_bias: bool,
    #[serde(default = "decoder_bias_default")]
    decoder_bias: bool,
    norm_eps: Option<f64>,
}

fn decoder_bias_default() -> bool {
    true
}

/// The tensors of a family's head.
struct Naming {
    dense: &'static str,
    norm: &'static str,
    /// The last layer's weight, where it is not the table of words.
    words: &'static str,
    /// The table of words.
    table: &'static str,
    biases: &'static [&'static str],
}

const BERT: Naming = Naming {
    dense: "cls.predictions.transform.dense",
    norm: "cls.predictions.transform.LayerNorm",
    words: "cls.predictions.decoder.weight",
    table: "bert.embeddings.word_embeddings.weight",
    biases: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
};
const DISTILBERT: Naming = Naming {
    dense: "vocab_transform",
    norm: "vocab_layer_norm",
    words: "vocab_projector.weight",
    table: "distilbert.embeddings.word_embeddings.weight",
    biases: &["vocab_projector.bias"],
};
const ROBERTA: Naming = Naming {
    dense: "lm_head.dense",
    norm: "lm_head.layer_norm",
    words: "lm_head.decoder.weight",
    table: "roberta.embeddings.word_embeddings.weight",
    biases: &["lm_head.bias", "lm_head.decoder.bias"],
};
const MODERNBERT: Naming = Naming {
    dense: "head.dense",
    norm: "head.norm",
    words: "decoder.weight",
    table: "model.embeddings.tok_embeddings.weight",
    biases: &["decoder.bias"],
};

impl MaskedLmConfig {
    /// Loads the head of a family, which computes in f32.
    pub(crate) fn load(
        &self,
        family: &str,
        path: &Path,
        weights: &Weights,
        sizes: Sizes,
        pooling: SpladePooling,
    ) -> Result<Splade, EngineError> {
        let (naming, field, name) = match family {
            "bert" => (BERT, "hidden_act", &self.hidden_act),
            "distilbert" => (DISTILBERT, "activation", &self.hidden_act),
            // It has no other.
            "roberta" | "xlm-roberta" | "camembert" => (ROBERTA, "hidden_act", &None),
            "modernbert" => (MODERNBERT, "classifier_activation", &self.classifier_activation),
            _ => {
                return Err(EngineError::NotSupported {
                    path: path.to_owned(),
                    field: "model_type",
                    value: family.to_owned(),
                    supported: "sparse vectors by bert, distilbert, roberta, xlm-roberta, camembert, modernbert",
                });
            }
        };
        let is_modern = family == "modernbert";
        let Sizes { vocabulary, hidden, .. } = sizes;
        let activation = activation(path, field, name.as_deref().unwrap_or("gelu"))?;
        let eps = match family {
            "modernbert" => self.norm_eps.unwrap_or(1e-5),
            "distilbert" => 1e-12, // not configurable there
            _ => self.layer_norm_eps.unwrap_or(1e-12),
        };
        let part = |name: &str, part| weights.f32(&format!("{name}.{part}"), &[hidden]);
        let dense_bias = (!is_modern || self.classifier_bias).then(|| part(naming.dense, "bias"));
        let dense = weights.f32(&format!("{}.weight", naming.dense), &[hidden, hidden])?;
        let scale = part(naming.norm, "weight")?;
        let shift = if is_modern { scale.zeros_like()? } else { part(naming.norm, "bias")? };
        let tied = !weights.contains(naming.words);
        let words = if tied { naming.table } else { naming.words };
        let words = weights.f32(words, &[vocabulary, hidden])?;
        let bias = naming.biases.iter().find(|name| weights.contains(name));
        let bias = match bias.or(naming.biases.first()) {
            Some(name) if !is_modern || self.decoder_bias => weights.f32(name, &[vocabulary])?,
            _ => Tensor::zeros(vocabulary, DType::F32, words.device())?,
        };
        Ok(Splade {
            dense: Linear::new(&dense, dense_bias.transpose()?.as_ref(), activation, DType::F32)?,
            norm: LayerNorm { scale, shift, eps: eps as f32 },
            words: blocks(&words, &bias)?,
            pooling,
        })
    }
}

/// The last layer in blocks of words, so that no batch needs the logits of all words at once.
fn blocks(words: &Tensor, bias: &Tensor) -> Result<Vec<Linear>, EngineError> {
    let vocabulary = words.dims()[0];
    let block = |first: usize| {
        let count = WORDS_AT_ONCE.min(vocabulary - first);
        let weight = words.narrow(0, first, count)?;
        let bias = bias.narrow(0, first, count)?;
        Ok(Linear::new(&weight, Some(&bias), Activation::None, DType::F32)?)
    };
    (0..vocabulary).step_by(WORDS_AT_ONCE).map(block).collect()
}
