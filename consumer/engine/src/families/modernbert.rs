//! `ModernBERT`: normalises before each half layer, rotates queries and keys (`RoPE`), gates its feed-forward half, and
//! attends to the whole sequence only in every few layers, elsewhere to a window.

use candle_core::Tensor;
use forebay_kernels::{
    Activation, AddLayerNorm, EmbedLayerNorm, Gate, LayerNorm, Linear, Mask, Rotary,
    VarlenAttention,
};
use serde_json::{Map, Value};

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::named::Named;
use crate::families::rope::rope_theta;
use crate::load::config::activation;
use crate::load::fields::Fields;
use crate::load::sizes::Sizes;

/// The kinds of layers, as `layer_types` and `rope_parameters` name them.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

/// Ten times as many layers as the largest model has.
const LAYERS_MAX: usize = 280;

/// The settings of `config.json` that shape the computation.
#[derive(Debug)]
pub(crate) struct ModernBertConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    norm_eps: f64,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    activation: Activation,
    local_attention: usize,
    global_theta: f64,
    local_theta: f64,
    /// For each layer whether it attends to the whole sequence.
    is_global: Vec<bool>,
}

impl ModernBertConfig {
    /// Takes the fields, with the defaults of transformers.
    pub(super) fn parse(fields: &mut Fields) -> Result<Self, EngineError> {
        let (global_theta, local_theta) = thetas(fields)?;
        let local_attention = fields.or("local_attention", 128)?;
        fields.only("sliding_window", &(local_attention / 2))?;
        fields.without_effect(&[
            "attention_dropout",
            "compile",
            "decoder_bias",
            "deterministic_flash_attn",
            "embedding_dropout",
            "initializer_cutoff_factor",
            "layer_norm_eps", // the first models have it, and norm_eps is what is read
            "mlp_dropout",
            "pad_token_id",
            "position_embedding_type",
            "reference_compile",
            "repad_logits_with_grad",
            "sparse_pred_ignore_index",
            "sparse_prediction",
        ]);
        let config = Self {
            vocab_size: fields.required("vocab_size")?,
            hidden_size: fields.required("hidden_size")?,
            intermediate_size: fields.required("intermediate_size")?,
            num_attention_heads: fields.required("num_attention_heads")?,
            max_position_embeddings: fields.required("max_position_embeddings")?,
            norm_eps: fields.or("norm_eps", 1e-5)?,
            norm_bias: fields.or("norm_bias", false)?,
            attention_bias: fields.or("attention_bias", false)?,
            mlp_bias: fields.or("mlp_bias", false)?,
            activation: activation(fields, "hidden_activation", "gelu")?,
            local_attention,
            global_theta,
            local_theta,
            is_global: is_global(fields)?,
        };
        config.sizes().check(fields.path(), config.num_attention_heads)?;
        Ok(config)
    }

    /// The smallest variance of a norm, and whether it has a shift.
    pub(super) fn norm(&self) -> (f64, bool) {
        (self.norm_eps, self.norm_bias)
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

    /// How far local attention sees on each side.
    pub(super) fn window(&self) -> usize {
        self.local_attention / 2
    }

    /// Values of an attention head.
    pub(super) fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The bases of the rotations in layers of both kinds. Before transformers 5 they were fields of their own, of which
/// the local one could be `null`, for the global one.
fn thetas(fields: &mut Fields) -> Result<(f64, f64), EngineError> {
    let local_is_global = fields.is_null("local_rope_theta");
    let global = fields.or("global_rope_theta", 160_000.0)?;
    let local = fields.get("local_rope_theta")?;
    let local = local.unwrap_or(if local_is_global { global } else { 10_000.0 });
    fields.only_empty("rope_scaling")?;
    let mut kinds: Map<String, Value> = fields.or("rope_parameters", Map::new())?;
    let mut theta = |kind: &str, default| {
        let parameters = kinds.remove(kind).unwrap_or_default();
        rope_theta(fields, parameters, default)
    };
    let thetas = (theta(GLOBAL, global)?, theta(LOCAL, local)?);
    match kinds.keys().next() {
        None => Ok(thetas),
        Some(other) => {
            let supported = format!("{GLOBAL}, {LOCAL}");
            Err(fields.not_supported("rope_parameters", other, &supported))
        }
    }
}

/// For each layer whether it attends to the whole sequence. Before transformers 5 every so many did.
fn is_global(fields: &mut Fields) -> Result<Vec<bool>, EngineError> {
    let layers: usize = fields.required("num_hidden_layers")?;
    let every: usize = fields.or("global_attn_every_n_layers", 3)?;
    if layers == 0 || layers > LAYERS_MAX || every == 0 {
        let problem = format!("{layers} num_hidden_layers, {every} global_attn_every_n_layers");
        return Err(fields.problem(problem));
    }
    let Some(kinds) = fields.get::<Vec<String>>("layer_types")? else {
        return Ok((0..layers).map(|index| index.is_multiple_of(every)).collect());
    };
    if kinds.len() != layers {
        let problem = format!("{} layer_types for {layers} num_hidden_layers", kinds.len());
        return Err(fields.problem(problem));
    }
    let is_global = |kind: &String| match kind.as_str() {
        GLOBAL => Ok(true),
        LOCAL => Ok(false),
        _ => Err(fields.not_supported("layer_types", kind, &format!("{GLOBAL}, {LOCAL}"))),
    };
    kinds.iter().map(is_global).collect()
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
        let (eps, shifts) = config.norm();
        let layers = config.is_global.len();
        let norm = |name: &str| -> Result<AddLayerNorm, EngineError> {
            Ok(AddLayerNorm { bias: None, norm: named.norm(name, hidden, eps, shifts)? })
        };
        let mut norms = Vec::new();
        for index in 0..layers {
            norms.push(norm(&format!("layers.{index}.mlp_norm"))?);
            let last = index + 1 == layers;
            let next = format!("layers.{}.attn_norm", index + 1);
            norms.push(norm(if last { "final_norm" } else { &next })?);
        }
        let layer = |(index, &is_global): (usize, &bool)| {
            let linear = |name: &str, sizes, has_bias| {
                let name = format!("layers.{index}.{name}");
                named.linear(&[name], sizes, Activation::None, has_bias)
            };
            let [attention, mlp] = [config.attention_bias, config.mlp_bias];
            Ok(Layer {
                is_global,
                qkv: linear("attn.Wqkv", [hidden, 3 * hidden], attention)?,
                attention_out: linear("attn.Wo", [hidden, hidden], attention)?,
                up: linear("mlp.Wi", [hidden, 2 * inner], mlp)?,
                down: linear("mlp.Wo", [inner, hidden], mlp)?,
            })
        };
        Ok(Self {
            hidden,
            inner,
            heads: config.num_attention_heads,
            window: Mask::Window(config.window()),
            words: named.table("embeddings.tok_embeddings", config.vocab_size, hidden)?,
            embedding_norm: named.norm("embeddings.norm", hidden, eps, shifts)?,
            global: rotary(config.global_theta)?,
            local: rotary(config.local_theta)?,
            gate: Gate { activation: config.activation },
            layers: config
                .is_global
                .iter()
                .enumerate()
                .map(layer)
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
            let attention = VarlenAttention {
                mask,
                seen: sequences.seen,
                ..VarlenAttention::new(cu_seqlens, self.heads)
            };
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
