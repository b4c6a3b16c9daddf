//! `ModernBERT`: normalises before each half layer, rotates queries and keys (`RoPE`), gates its feed-forward half, and
//! attends to the whole sequence only in every few layers, elsewhere to a window.

use std::path::Path;

use candle_core::Tensor;
use forebay_kernels::{
    Activation, AddLayerNorm, EmbedLayerNorm, Gate, LayerNorm, Linear, Mask, Rotary,
    VarlenAttention,
};
use serde::Deserialize;

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::named::Named;
use crate::load::config::{activation, expect, from_json};
use crate::load::sizes::Sizes;

/// The fields of `config.json` that shape the computation, with the defaults of transformers.
#[derive(Debug, Deserialize)]
pub(crate) struct ModernBertConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    #[serde(default = "norm_eps_default")]
    norm_eps: f64,
    #[serde(default = "global_every_default")]
    global_attn_every_n_layers: usize,
    #[serde(default = "local_attention_default")]
    local_attention: usize,
    #[serde(default = "global_theta_default")]
    global_rope_theta: f64,
    #[serde(default = "local_theta_default")]
    local_rope_theta: f64,
    #[serde(default = "activation_default")]
    hidden_activation: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    norm_bias: bool,
}

fn norm_eps_default() -> f64 {
    1e-5
}
fn global_every_default() -> usize {
    3
}
fn local_attention_default() -> usize {
    128
}
fn global_theta_default() -> f64 {
    160_000.0
}
fn local_theta_default() -> f64 {
    10_000.0
}
fn activation_default() -> String {
    "gelu".to_owned()
}

impl ModernBertConfig {
    pub(super) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        let config: Self = from_json(path, json)?;
        config.sizes().check(path, config.num_attention_heads)?;
        activation(path, "hidden_activation", &config.hidden_activation)?;
        for (field, value) in [
            ("attention_bias", config.attention_bias),
            ("mlp_bias", config.mlp_bias),
            ("norm_bias", config.norm_bias),
        ] {
            expect(path, field, &value.to_string(), "false")?;
        }
        if config.global_attn_every_n_layers == 0 || config.num_hidden_layers == 0 {
            let problem = "global_attn_every_n_layers or num_hidden_layers is zero".to_owned();
            return Err(EngineError::Config { path: path.to_owned(), problem });
        }
        Ok(config)
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            positions: self.max_position_embeddings,
            types: 0,
        }
    }

    /// Values of an attention head.
    pub(super) fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// A model's layers.
pub(super) struct ModernBert {
    hidden: usize,
    inner: usize,
    heads: usize,
    window: Mask,
    words: Tensor,
    embedding_norm: LayerNorm,
    global: Rotary,
    local: Rotary,
    gate: Gate,
    layers: Vec<Layer>,
    /// The norm after each half, which is the one before the next half. The last one is the model's.
    norms: Vec<AddLayerNorm>,
}

struct Layer {
    is_global: bool,
    qkv: Linear,
    attention_out: Linear,
    up: Linear,
    down: Linear,
}

impl ModernBert {
    pub(super) fn load(config: &ModernBertConfig, named: &Named<'_>) -> Result<Self, EngineError> {
        let hidden = config.hidden_size;
        let inner = config.intermediate_size;
        let rotary = |base| named.rotary(config.head_size(), base, config.max_position_embeddings);
        let norm = |name: &str| -> Result<AddLayerNorm, EngineError> {
            Ok(AddLayerNorm { bias: None, norm: named.norm(name, hidden, config.norm_eps, false)? })
        };
        let mut norms = Vec::new();
        for index in 0..config.num_hidden_layers {
            norms.push(norm(&format!("layers.{index}.mlp_norm"))?);
            let last = index + 1 == config.num_hidden_layers;
            let next = format!("layers.{}.attn_norm", index + 1);
            norms.push(norm(if last { "final_norm" } else { &next })?);
        }
        // The name was checked with the configuration.
        let activation = activation(Path::new(""), "hidden_activation", &config.hidden_activation)?;
        Ok(Self {
            hidden,
            inner,
            heads: config.num_attention_heads,
            window: Mask::Window(config.local_attention / 2),
            words: named.table("embeddings.tok_embeddings", config.vocab_size, hidden)?,
            embedding_norm: named.norm("embeddings.norm", hidden, config.norm_eps, false)?,
            global: rotary(config.global_rope_theta)?,
            local: rotary(config.local_rope_theta)?,
            gate: Gate { activation },
            layers: (0..config.num_hidden_layers)
                .map(|index| {
                    let linear = |name: &str, inputs, outputs| {
                        let name = format!("layers.{index}.{name}");
                        named.linear(&[name], [inputs, outputs], Activation::None, false)
                    };
                    Ok(Layer {
                        is_global: index.is_multiple_of(config.global_attn_every_n_layers),
                        qkv: linear("attn.Wqkv", hidden, 3 * hidden)?,
                        attention_out: linear("attn.Wo", hidden, hidden)?,
                        up: linear("mlp.Wi", hidden, 2 * inner)?,
                        down: linear("mlp.Wo", inner, hidden)?,
                    })
                })
                .collect::<Result<_, EngineError>>()?,
            norms,
        })
    }
}

impl Layers for ModernBert {
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        let tokens = sequences.token_ids.len();
        let hidden = self.hidden;
        let cu_seqlens = sequences.cu_seqlens;
        // The sum of all halves so far, and its normalised copy.
        let sum = space.take(Slot::Hidden, tokens, hidden)?;
        let normed = space.take(Slot::Attended, tokens, hidden)?;
        let qkv = space.take(Slot::Qkv, tokens, 3 * hidden)?;
        let context = space.take(Slot::Context, tokens, hidden)?;
        let projected = space.take(Slot::Projected, tokens, hidden)?;
        let inner = space.take(Slot::Inner, tokens, 2 * self.inner)?;
        let gated = space.take(Slot::Gated, tokens, self.inner)?;
        EmbedLayerNorm {
            token_ids: sequences.token_ids,
            type_ids: None,
            cu_seqlens,
            first_position: 0,
            norm: &self.embedding_norm,
        }
        .forward_into(&self.words, None, None, &sum)?;
        for (index, (layer, norms)) in
            self.layers.iter().zip(self.norms.chunks_exact(2)).enumerate()
        {
            // The embeddings are normalised already: the first layer has no norm of its own.
            layer.qkv.forward_into(if index == 0 { &sum } else { &normed }, &qkv)?;
            let rotary = if layer.is_global { &self.global } else { &self.local };
            rotary.apply(&qkv, cu_seqlens, self.heads)?;
            let mask = if layer.is_global { Mask::Bidirectional } else { self.window };
            let attention =
                VarlenAttention { mask, ..VarlenAttention::new(cu_seqlens, self.heads) };
            attention.forward_into(&qkv, &context)?;
            layer.attention_out.forward_into(&context, &projected)?;
            norms[0].forward_both_into(&projected, &sum, &normed)?;
            layer.up.forward_into(&normed, &inner)?;
            self.gate.forward_into(&inner, &gated)?;
            layer.down.forward_into(&gated, &projected)?;
            norms[1].forward_both_into(&projected, &sum, &normed)?;
        }
        Ok(normed)
    }
}
