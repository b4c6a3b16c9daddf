//! The layers of dense decoders: norm, attention to pages, norm, gated feed-forward half, and all of it again.

use candle_core::{DType as TensorType, Device, Tensor};
use forebay_kernels::{
    Activation, AddRmsNorm, BLOCK, Gate, Linear, PagedAttention, Pages, QkvIntoPages, RmsNorm,
    Rotary, StepRows,
};

use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::decoder_config::{DecoderConfig, LayerConfig};
use crate::load::gguf::packed::Packed;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// Prefixes that decoders' tensors are found under; a head stands beside `model.`.
const PREFIXES: [&str; 3] = ["model.", "language_model.model.", ""];

/// A decoder's weights.
pub(crate) struct Decoder {
    config: DecoderConfig,
    words: Tensor,
    /// Rotations by their number in [`LayerConfig::rope`].
    ropes: Vec<Rotary>,
    gate: Gate,
    /// Before the first layer; the other norms belong to what comes before them.
    first_norm: RmsNorm,
    layers: Vec<Layer>,
    head: Linear,
}

struct Layer {
    config: LayerConfig,
    qkv: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    attention_out: Linear,
    after_attention: Option<RmsNorm>,
    /// Adds what attention gave, and normalises it for the feed-forward half.
    middle: AddRmsNorm,
    /// The gate's input beside what it multiplies.
    up: Linear,
    down: Linear,
    after_feed_forward: Option<RmsNorm>,
    /// Adds what the feed-forward half gave, and normalises it for the next layer or the head.
    end: AddRmsNorm,
}

/// New tokens of a step.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The tokens of all sequences, end to end.
    pub(crate) token_ids: &'a [u32],
    pub(crate) step: &'a StepRows<'a>,
    /// The rows whose logits are wanted.
    pub(crate) picked: &'a [u32],
}

impl Decoder {
    /// Loads the weights for sequences of up to `positions` tokens.
    pub(crate) fn load(
        config: DecoderConfig,
        tensors: &dyn Tensors,
        dtype: DType,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let named = Named::new(tensors, dtype, config.adds_one, config.eps);
        let DecoderConfig { vocabulary, hidden, .. } = config;
        let words = named.tensor("embed_tokens.weight", &[vocabulary, hidden])?;
        let head_name = named.head();
        let is_tied = config.is_tied.unwrap_or(!tensors.contains(&head_name));
        let head_name =
            if is_tied { format!("{}embed_tokens.weight", named.prefix) } else { head_name };
        let head = named.side_by_side(&[(head_name, vocabulary)], hidden, None)?;
        let layers = (0..config.layers.len())
            .map(|index| Layer::load(&config, index, &named))
            .collect::<Result<_, _>>()?;
        let ropes =
            config.ropes.iter().map(|rope| rope.table(positions)).collect::<Result<_, _>>()?;
        Ok(Self {
            words: words.to_dtype(dtype.tensor())?,
            ropes,
            gate: Gate { activation: config.activation },
            first_norm: named.norm("layers.0.input_layernorm", hidden)?,
            layers,
            head,
            config,
        })
    }

    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Pages for keys and values: one store a layer.
    pub(crate) fn memory(
        &self,
        pages: usize,
        dtype: TensorType,
    ) -> Result<Vec<Pages>, EngineError> {
        let DecoderConfig { kv_heads, head_dim, .. } = self.config;
        let layer = |_| Ok(Pages::new(pages, kv_heads, head_dim, dtype, &Device::Cpu)?);
        self.layers.iter().map(layer).collect()
    }

    /// Computes the rows of a step and writes their keys and values to `memory`; returns the logits
    /// `[picked, vocabulary]` in f32.
    pub(crate) fn forward(
        &self,
        rows: Rows<'_>,
        memory: &[Pages],
        space: &mut Workspace,
    ) -> Result<Vec<f32>, EngineError> {
        let tokens = rows.token_ids.len();
        let DecoderConfig { hidden, inner, heads, head_dim, .. } = self.config;
        let sum = self.embed(rows.token_ids)?;
        let normed = space.take(Slot::Attended, tokens, hidden)?;
        let qkv = space.take(Slot::Qkv, tokens, self.config.qkv_width())?;
        let context = space.take(Slot::Context, tokens, heads * head_dim)?;
        let projected = space.take(Slot::Projected, tokens, hidden)?;
        let up = space.take(Slot::Inner, tokens, 2 * inner)?;
        let gated = space.take(Slot::Gated, tokens, inner)?;
        let after = space.take(Slot::Hidden, tokens, hidden)?;
        self.first_norm.forward_into(&sum, &normed)?;
        for (layer, pages) in self.layers.iter().zip(memory) {
            layer.qkv.forward_into(&normed, &qkv)?;
            self.attend(layer, rows.step, &qkv, pages, &context)?;
            layer.attention_out.forward_into(&context, &projected)?;
            let half = normalized(layer.after_attention.as_ref(), &projected, &after)?;
            layer.middle.forward_both_into(half, &sum, &normed)?;
            layer.up.forward_into(&normed, &up)?;
            self.gate.forward_into(&up, &gated)?;
            layer.down.forward_into(&gated, &projected)?;
            let half = normalized(layer.after_feed_forward.as_ref(), &projected, &after)?;
            layer.end.forward_both_into(half, &sum, &normed)?;
        }
        self.logits(&normed, rows.picked)
    }

    fn attend(
        &self,
        layer: &Layer,
        rows: &StepRows<'_>,
        qkv: &Tensor,
        pages: &Pages,
        context: &Tensor,
    ) -> Result<(), EngineError> {
        let DecoderConfig { heads, kv_heads, scale, .. } = self.config;
        let into_pages = QkvIntoPages {
            rotary: layer.config.rope.and_then(|rope| self.ropes.get(rope)),
            q_norm: layer.q_norm.as_ref(),
            k_norm: layer.k_norm.as_ref(),
            heads,
            kv_heads,
        };
        into_pages.apply(qkv, rows, pages)?;
        let attention = PagedAttention {
            scale,
            window: layer.config.window,
            ..PagedAttention::new(rows, heads, kv_heads)
        };
        Ok(attention.forward_into(qkv, pages, context)?)
    }

    fn embed(&self, token_ids: &[u32]) -> Result<Tensor, EngineError> {
        let ids = Tensor::new(token_ids, &Device::Cpu)?;
        let words = self.words.index_select(&ids, 0)?;
        if !self.config.scales_words {
            return Ok(words);
        }
        // Rounded as the number type that layers compute in, as transformers does.
        let scale = Tensor::new((self.config.hidden as f64).sqrt() as f32, &Device::Cpu)?;
        Ok(words.broadcast_mul(&scale.to_dtype(words.dtype())?)?)
    }

    fn logits(&self, normed: &Tensor, picked: &[u32]) -> Result<Vec<f32>, EngineError> {
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let rows = normed.index_select(&Tensor::new(picked, &Device::Cpu)?, 0)?;
        let logits = self.head.forward(&rows)?.to_dtype(TensorType::F32)?;
        let mut logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        if let Some(cap) = self.config.logit_cap {
            for logit in &mut logits {
                *logit = cap * (*logit / cap).tanh();
            }
        }
        Ok(logits)
    }
}

/// A half's result, normalised into `out` where the family does that.
fn normalized<'a>(
    norm: Option<&RmsNorm>,
    x: &'a Tensor,
    out: &'a Tensor,
) -> Result<&'a Tensor, EngineError> {
    match norm {
        None => Ok(x),
        Some(norm) => {
            norm.forward_into(x, out)?;
            Ok(out)
        }
    }
}

impl Layer {
    fn load(config: &DecoderConfig, index: usize, named: &Named<'_>) -> Result<Self, EngineError> {
        let DecoderConfig { hidden, inner, heads, kv_heads, head_dim, .. } = *config;
        let name = |part: &str| format!("layers.{index}.{part}");
        let [query, key] = [heads, kv_heads].map(|heads| heads * head_dim);
        let qkv = if config.is_fused {
            vec![(name("self_attn.qkv_proj"), query + 2 * key)]
        } else {
            let part = |part: &str, outputs| (name(&format!("self_attn.{part}_proj")), outputs);
            vec![part("q", query), part("k", key), part("v", key)]
        };
        let up = if config.is_fused {
            vec![(name("mlp.gate_up_proj"), 2 * inner)]
        } else {
            vec![(name("mlp.gate_proj"), inner), (name("mlp.up_proj"), inner)]
        };
        let one = |part: &str, outputs| vec![(name(part), outputs)];
        let head_norm = |part: &str| {
            let there = config.normalizes_heads;
            there.then(|| named.norm(&name(part), head_dim)).transpose()
        };
        let norm = |part: &str| named.norm(&name(part), hidden);
        let after = |part: &str| config.normalizes_after.then(|| norm(part)).transpose();
        let before_feed_forward = if config.normalizes_after {
            "pre_feedforward_layernorm"
        } else {
            "post_attention_layernorm"
        };
        let last = index + 1 == config.layers.len();
        let next = format!("layers.{}.input_layernorm", index + 1);
        Ok(Self {
            config: config.layers[index],
            qkv: named.linear(&qkv, hidden, config.qkv_bias)?,
            q_norm: head_norm("self_attn.q_norm")?,
            k_norm: head_norm("self_attn.k_norm")?,
            attention_out: named.linear(
                &one("self_attn.o_proj", hidden),
                query,
                config.out_bias,
            )?,
            after_attention: after("post_attention_layernorm")?,
            middle: AddRmsNorm { norm: norm(before_feed_forward)? },
            up: named.linear(&up, hidden, config.mlp_bias)?,
            down: named.linear(&one("mlp.down_proj", hidden), inner, config.mlp_bias)?,
            after_feed_forward: after("post_feedforward_layernorm")?,
            end: AddRmsNorm { norm: named.norm(if last { "norm" } else { &next }, hidden)? },
        })
    }
}

/// Tensors by name, made into the parameters of operations.
struct Named<'a> {
    tensors: &'a dyn Tensors,
    prefix: &'static str,
    dtype: DType,
    adds_one: bool,
    eps: f64,
}

impl<'a> Named<'a> {
    fn new(tensors: &'a dyn Tensors, dtype: DType, adds_one: bool, eps: f64) -> Self {
        let there = |prefix: &&str| tensors.contains(&format!("{prefix}embed_tokens.weight"));
        let prefix = PREFIXES.into_iter().find(there).unwrap_or(PREFIXES[0]);
        Self { tensors, prefix, dtype, adds_one, eps }
    }

    /// The head's name.
    fn head(&self) -> String {
        format!("{}lm_head.weight", self.prefix.strip_suffix("model.").unwrap_or(self.prefix))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.tensors.f32(&format!("{}{name}", self.prefix), shape)
    }

    fn norm(&self, name: &str, width: usize) -> Result<RmsNorm, EngineError> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let weight = if self.adds_one { (weight + 1.0)? } else { weight };
        Ok(RmsNorm { weight, eps: self.eps as f32 })
    }

    /// Linear layers of the same inputs as one, their outputs side by side.
    fn linear(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
        has_bias: bool,
    ) -> Result<Linear, EngineError> {
        let bias =
            |(name, outputs): &(String, usize)| self.tensor(&format!("{name}.bias"), &[*outputs]);
        let biases = if has_bias { parts } else { &[] };
        let biases = biases.iter().map(bias).collect::<Result<Vec<_>, _>>()?;
        let bias = has_bias.then(|| Tensor::cat(&biases, 0)).transpose()?;
        let weight =
            |(name, outputs): &(String, usize)| (format!("{}{name}.weight", self.prefix), *outputs);
        let weights: Vec<(String, usize)> = parts.iter().map(weight).collect();
        self.side_by_side(&weights, inputs, bias.as_ref())
    }

    /// Weights by their whole names as one layer.
    fn side_by_side(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
        bias: Option<&Tensor>,
    ) -> Result<Linear, EngineError> {
        let states = self.dtype.tensor();
        let none = Activation::None;
        // Blocks are of 32 inputs.
        if self.dtype == DType::Q4 && inputs.is_multiple_of(BLOCK) {
            let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
            let packed = parts.iter().map(|(name, outputs)| self.packed(name, [*outputs, inputs]));
            return Ok(match Packed::side_by_side(packed.collect::<Result<_, _>>()?) {
                Packed::Four(blocks) => {
                    Linear::of_q4(outputs, inputs, &blocks, bias, none, states)?
                }
                Packed::Eight(blocks) => {
                    Linear::of_q8(outputs, inputs, &blocks, bias, none, states)?
                }
            });
        }
        let weight =
            |(name, outputs): &(String, usize)| self.tensors.f32(name, &[*outputs, inputs]);
        let weight = Tensor::cat(&parts.iter().map(weight).collect::<Result<Vec<_>, _>>()?, 0)?;
        Ok(match self.dtype {
            DType::Int8 => Linear::int8(&weight, bias, none, states)?,
            DType::F32 | DType::Bf16 | DType::F16 | DType::Q4 => {
                Linear::new(&weight, bias, none, states)?
            }
        })
    }

    /// A weight in blocks: the file's own, or the nearest of eight bits.
    fn packed(&self, name: &str, shape: [usize; 2]) -> Result<Packed, EngineError> {
        let blocks = self.tensors.blocks(name, shape)?;
        if let Some(packed) = blocks.as_ref().and_then(Packed::of) {
            return Ok(packed);
        }
        let weights: Vec<f32> = self.tensors.f32(name, &shape)?.flatten_all()?.to_vec1()?;
        Ok(Packed::nearest(&weights))
    }
}
