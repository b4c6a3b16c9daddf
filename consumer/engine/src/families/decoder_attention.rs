//! The attention half of a decoder's layer, from the normalised states to what the last projection takes.

use candle_core::{DType as TensorType, Device, Tensor};
use forebay_kernels::{Linear, PagedAttention, Pages, QkvIntoPages, RmsNorm, Rotary, StepRows};

use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::decoder_config::DecoderConfig;
use crate::families::decoder_layers::LayerConfig;
use crate::families::decoder_tensors::Named;
use crate::families::latent::LatentAttention;

/// One layer's attention.
pub(super) enum Attention {
    /// Heads of keys and values, each shared by some heads of queries.
    Grouped(GroupedAttention),
    /// Keys and values made of one low-rank state of a token.
    Latent(Box<LatentAttention>),
}

/// The operands of a layer's attention that are read, beside its weights.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// `[tokens, hidden]`, normalised.
    pub(super) states: &'a Tensor,
    pub(super) rows: &'a StepRows<'a>,
    pub(super) rotary: Option<&'a Rotary>,
}

/// Attention whose keys and values are projections of the states.
pub(super) struct GroupedAttention {
    qkv: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    /// `[heads]`
    sinks: Option<Tensor>,
}

impl Attention {
    /// The weights of the layer whose tensors' names `name` makes of their parts'.
    pub(super) fn load(
        config: &DecoderConfig,
        name: &dyn Fn(&str) -> String,
        named: &Named<'_>,
    ) -> Result<Self, EngineError> {
        match config.latent {
            Some(latent) => {
                let latent = LatentAttention::load(latent, config, name, named)?;
                Ok(Self::Latent(Box::new(latent)))
            }
            None => Ok(Self::Grouped(GroupedAttention::load(config, name, named)?)),
        }
    }

    /// Writes keys and values to `pages` and what attention gives to `context`.
    pub(super) fn forward(
        &self,
        config: &DecoderConfig,
        layer: LayerConfig,
        inputs: Inputs<'_>,
        space: &mut Workspace,
        pages: &Pages,
        context: &Tensor,
    ) -> Result<(), EngineError> {
        let DecoderConfig { heads, kv_heads, scale, .. } = *config;
        let attention = PagedAttention {
            scale,
            window: layer.window,
            is_bidirectional: config.bidirectional.is_some(),
            ..PagedAttention::new(inputs.rows, heads, kv_heads)
        };
        match self {
            Self::Grouped(grouped) => {
                let qkv = space.take(Slot::Qkv, inputs.rows.tokens(), config.qkv_width())?;
                grouped.qkv.forward_into(inputs.states, &qkv)?;
                let into_pages = QkvIntoPages {
                    rotary: inputs.rotary,
                    q_norm: grouped.q_norm.as_ref(),
                    k_norm: grouped.k_norm.as_ref(),
                    heads,
                    kv_heads,
                };
                into_pages.apply(&qkv, inputs.rows, pages)?;
                let sinks = grouped.sinks.as_ref();
                Ok(PagedAttention { sinks, ..attention }.forward_into(&qkv, pages, context)?)
            }
            Self::Latent(latent) => {
                latent.forward(attention, inputs.rotary, inputs.states, space, pages, context)
            }
        }
    }
}

/// Pages for a layer's keys and values.
pub(super) fn pages(
    config: &DecoderConfig,
    count: usize,
    dtype: TensorType,
) -> Result<Pages, EngineError> {
    let DecoderConfig { kv_heads, head_dim, .. } = *config;
    Ok(match config.latent {
        Some(latent) => Pages::latent(count, latent.key(), latent.rank, dtype, &Device::Cpu)?,
        None => Pages::new(count, kv_heads, head_dim, dtype, &Device::Cpu)?,
    })
}

impl GroupedAttention {
    fn load(
        config: &DecoderConfig,
        name: &dyn Fn(&str) -> String,
        named: &Named<'_>,
    ) -> Result<Self, EngineError> {
        let DecoderConfig { hidden, heads, kv_heads, head_dim, .. } = *config;
        let [query, key] = [heads, kv_heads].map(|heads| heads * head_dim);
        let qkv = if config.is_fused {
            vec![(name("self_attn.qkv_proj"), query + 2 * key)]
        } else {
            let part = |part: &str, outputs| (name(&format!("self_attn.{part}_proj")), outputs);
            vec![part("q", query), part("k", key), part("v", key)]
        };
        let head_norm = |part: &str| {
            let there = config.normalizes_heads;
            there.then(|| named.norm(&name(part), head_dim)).transpose()
        };
        let sinks = || named.tensor(&name("self_attn.sinks"), &[heads]);
        Ok(Self {
            qkv: named.linear(&qkv, hidden, config.qkv_bias)?,
            q_norm: head_norm("self_attn.q_norm")?,
            k_norm: head_norm("self_attn.k_norm")?,
            sinks: config.has_sinks.then(sinks).transpose()?,
        })
    }
}
