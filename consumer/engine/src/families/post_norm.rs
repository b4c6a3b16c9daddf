//! BERT and its kin over fused operations: seven a layer, on packed tokens, each half closed by a LayerNorm.

use candle_core::Tensor;
use forebay_kernels::{
    Activation, EmbedLayerNorm, FeedForward, Gate, LayerNorm, Linear, LinearLayerNorm, Rotary,
    VarlenAttention,
};

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::named::Named;
use crate::families::post_norm_config::{Biases, PositionEncoding, PostNormConfig};
use crate::families::relative;

/// A model's layers.
pub(super) struct PostNorm {
    hidden: usize,
    heads: usize,
    first_position: usize,
    words: Tensor,
    positions: Option<Tensor>,
    types: Option<Tensor>,
    embedding_norm: LayerNorm,
    rotary: Option<Rotary>,
    distance_bias: Option<Tensor>,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Linear,
    /// The bias that attention adds to queries, keys and values, where `qkv` has not added it.
    qkv_bias: Option<Tensor>,
    attention_out: LinearLayerNorm,
    feed_forward: FeedForward,
    /// The gate between the two layers of `feed_forward`.
    gate: Option<Gate>,
}

impl PostNorm {
    pub(super) fn load(config: &PostNormConfig, named: &Named<'_>) -> Result<Self, EngineError> {
        let sizes = config.sizes;
        let naming = config.naming;
        let hidden = sizes.hidden;
        let heads = config.heads;
        // First, so that sizes that are not the weights' make no tables.
        let words = named.table("embeddings.word_embeddings", sizes.vocabulary, hidden)?;
        let positions = match config.position_encoding {
            PositionEncoding::Absolute | PositionEncoding::Buckets(_) => {
                let rows = sizes.positions + config.first_position;
                Some(named.table("embeddings.position_embeddings", rows, hidden)?)
            }
            PositionEncoding::Rotary(_) | PositionEncoding::Alibi => None,
        };
        let types = (sizes.types > 0)
            .then(|| named.table("embeddings.token_type_embeddings", sizes.types, hidden))
            .transpose()?;
        let rotary = match config.position_encoding {
            PositionEncoding::Rotary(base) => {
                Some(named.rotary(hidden / heads, base, sizes.positions)?)
            }
            _ => None,
        };
        let distance_bias = match config.position_encoding {
            PositionEncoding::Buckets(buckets) => {
                let name = "encoder.relative_attention_bias.weight";
                Some(relative::bucketed(&named.tensor(name, &[buckets, heads])?, sizes.positions)?)
            }
            PositionEncoding::Alibi => Some(relative::alibi(heads, sizes.positions)?),
            _ => None,
        };
        let distance_bias = distance_bias.map(|bias| named.on_device(&bias)).transpose()?;
        Ok(Self {
            hidden,
            heads,
            first_position: config.first_position,
            words,
            positions,
            types,
            embedding_norm: named.norm(naming.embedding_norm, hidden, config.eps, true)?,
            rotary,
            distance_bias,
            layers: (0..config.layers)
                .map(|index| Layer::load(config, named, index))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Layer {
    fn load(config: &PostNormConfig, named: &Named<'_>, index: usize) -> Result<Self, EngineError> {
        let naming = config.naming;
        let eps = config.eps;
        let hidden = config.sizes.hidden;
        let inner = config.sizes.inner;
        let has_bias = naming.biases != Biases::None;
        let below = |name: &str| format!("{}.{index}.{name}", naming.layer);
        let all = |names: &[&str]| names.iter().map(|name| below(name)).collect::<Vec<_>>();
        let closed = |names: [&str; 2], inputs| {
            let [linear, norm] = names.map(below);
            named.linear_layer_norm([&linear, &norm], [inputs, hidden], eps, has_bias)
        };
        let gate = naming.gated.then_some(Gate { activation: config.activation });
        let activation = if naming.gated { Activation::None } else { config.activation };
        // Rotated queries and keys need their bias before the rotation.
        let attention_adds_bias = has_bias
            && named.prefers_bias_in_attention()
            && !matches!(config.position_encoding, PositionEncoding::Rotary(_));
        let qkv = all(naming.qkv);
        let qkv_outputs = 3 * hidden / naming.qkv.len();
        let up_outputs = (1 + usize::from(naming.gated)) * inner / naming.up.len();
        Ok(Self {
            qkv: named.linear(
                &qkv,
                [hidden, qkv_outputs],
                Activation::None,
                has_bias && !attention_adds_bias,
            )?,
            qkv_bias: attention_adds_bias.then(|| named.bias(&qkv, qkv_outputs)).transpose()?,
            attention_out: closed(naming.attention_out, hidden)?,
            feed_forward: FeedForward {
                up: named.linear(
                    &all(naming.up),
                    [hidden, up_outputs],
                    activation,
                    naming.biases == Biases::All,
                )?,
                down: closed(naming.down, inner)?,
            },
            gate,
        })
    }
}

impl Layers for PostNorm {
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        let tokens = sequences.token_ids.len();
        let hidden = self.hidden;
        let cu_seqlens = sequences.cu_seqlens;
        let state = space.take(Slot::Hidden, tokens, hidden)?;
        let attended = space.take(Slot::Attended, tokens, hidden)?;
        let qkv = space.take(Slot::Qkv, tokens, 3 * hidden)?;
        let context = space.take(Slot::Context, tokens, hidden)?;
        let projected = space.take(Slot::Projected, tokens, hidden)?;
        EmbedLayerNorm {
            token_ids: sequences.token_ids,
            // A table of one row has one type for all (RoBERTa).
            type_ids: sequences
                .type_ids
                .filter(|_| self.types.as_ref().is_some_and(|t| t.dims()[0] > 1)),
            cu_seqlens,
            first_position: self.first_position,
            norm: &self.embedding_norm,
        }
        .forward_into(&self.words, self.positions.as_ref(), self.types.as_ref(), &state)?;
        let attention = VarlenAttention {
            distance_bias: self.distance_bias.as_ref(),
            ..VarlenAttention::new(cu_seqlens, self.heads)
        };
        for layer in &self.layers {
            layer.qkv.forward_into(&state, &qkv)?;
            if let Some(rotary) = &self.rotary {
                rotary.apply(&qkv, cu_seqlens, self.heads)?;
            }
            VarlenAttention { bias: layer.qkv_bias.as_ref(), ..attention }
                .forward_into(&qkv, &context)?;
            layer.attention_out.forward_into(&context, &state, &projected, &attended)?;
            let FeedForward { up, down } = &layer.feed_forward;
            let inner = space.take(Slot::Inner, tokens, up.outputs())?;
            if let Some(gate) = &layer.gate {
                let gated = space.take(Slot::Gated, tokens, down.linear.inputs())?;
                up.forward_into(&attended, &inner)?;
                gate.forward_into(&inner, &gated)?;
                down.forward_into(&gated, &attended, &projected, &state)?;
            } else {
                layer.feed_forward.forward_into(&attended, &inner, &projected, &state)?;
            }
        }
        Ok(state)
    }
}
