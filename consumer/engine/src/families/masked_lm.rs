//! Heads of masked language models, which sparse encoders end in: the names of their tensors in each family.

use candle_core::{DType, Tensor};
use forebay_kernels::{Activation, LayerNorm, Linear};

use crate::encode::splade::{Splade, WORDS_AT_ONCE};
use crate::error::EngineError;
use crate::load::config::activation;
use crate::load::fields::Fields;
use crate::load::per_token::SpladePooling;
use crate::load::safetensors::Weights;
use crate::load::sizes::Sizes;

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

/// Loads the head of a family, which computes in f32. `fields` are all of the model's `config.json`.
pub(crate) fn load(
    fields: &mut Fields,
    family: &str,
    weights: &Weights,
    sizes: Sizes,
    pooling: SpladePooling,
) -> Result<Splade, EngineError> {
    let is_modern = family == "modernbert";
    let (naming, activation, eps): (_, _, f64) = match family {
        "bert" => {
            (BERT, activation(fields, "hidden_act", "gelu")?, fields.or("layer_norm_eps", 1e-12)?)
        }
        // Its eps is not configurable.
        "distilbert" => (DISTILBERT, activation(fields, "activation", "gelu")?, 1e-12),
        // Its activation is not configurable.
        "roberta" | "xlm-roberta" | "camembert" => {
            (ROBERTA, Activation::Gelu, fields.or("layer_norm_eps", 1e-12)?)
        }
        "modernbert" => {
            let activation = activation(fields, "classifier_activation", "gelu")?;
            (MODERNBERT, activation, fields.or("norm_eps", 1e-5)?)
        }
        _ => {
            let supported =
                "sparse vectors by bert, distilbert, roberta, xlm-roberta, camembert, modernbert";
            return Err(fields.not_supported("model_type", &family, &supported));
        }
    };
    let Sizes { vocabulary, hidden, .. } = sizes;
    let [dense_has_bias, norm_shifts, words_have_bias] = if is_modern {
        let dense = fields.or("classifier_bias", false)?;
        [dense, fields.or("norm_bias", false)?, fields.or("decoder_bias", true)?]
    } else {
        [true; 3]
    };
    let part = |name: &str, part| weights.f32(&format!("{name}.{part}"), &[hidden]);
    let dense_bias = dense_has_bias.then(|| part(naming.dense, "bias")).transpose()?;
    let dense = weights.f32(&format!("{}.weight", naming.dense), &[hidden, hidden])?;
    let scale = part(naming.norm, "weight")?;
    let shift = if norm_shifts { part(naming.norm, "bias")? } else { scale.zeros_like()? };
    // Without weights of its own the last layer has those of the words, unless the configuration says otherwise.
    let may_be_tied = fields.or("tie_word_embeddings", true)?;
    let tied = may_be_tied && !weights.contains(naming.words);
    let words = if tied { naming.table } else { naming.words };
    let words = weights.f32(words, &[vocabulary, hidden])?;
    let bias = naming.biases.iter().find(|name| weights.contains(name));
    let bias = match bias.or(naming.biases.first()) {
        Some(name) if words_have_bias => weights.f32(name, &[vocabulary])?,
        _ => Tensor::zeros(vocabulary, DType::F32, words.device())?,
    };
    Ok(Splade {
        dense: Linear::new(&dense, dense_bias.as_ref(), activation, DType::F32)?,
        norm: LayerNorm { scale, shift, eps: eps as f32 },
        words: blocks(&words, &bias)?,
        pooling,
    })
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
