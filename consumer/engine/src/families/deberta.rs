//! DeBERTa-v2 and v3: disentangled attention, which also weighs content against relative positions, both ways (He et
//! al. 2020).
//!
//! Its linear layers and norms are the fused ones. Its attention is not: scores need gathers by distance that differ
//! with each query, so it is computed sequence by sequence with plain tensor operations, in f32.

use candle_core::{D, Device, Tensor};
use forebay_kernels::{
    Activation, EmbedLayerNorm, FeedForward, LayerNorm, Linear, LinearLayerNorm,
};
use serde_json::Value;

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::named::Named;
use crate::load::config::activation;
use crate::load::fields::Fields;
use crate::load::sizes::Sizes;

/// The settings of `config.json` that shape the computation.
#[derive(Debug)]
pub(crate) struct DebertaConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    activation: Activation,
    max_relative_positions: i64,
    position_buckets: i64,
    pos_att_type: Vec<String>,
    position_biased_input: bool,
    normalizes_relative: bool,
}

impl DebertaConfig {
    /// Takes the fields, with the defaults of transformers.
    pub(super) fn parse(fields: &mut Fields) -> Result<Self, EngineError> {
        let norm_of_relative: String = fields.or("norm_rel_ebd", "none".to_owned())?;
        let config = Self {
            vocab_size: fields.required("vocab_size")?,
            hidden_size: fields.required("hidden_size")?,
            intermediate_size: fields.required("intermediate_size")?,
            num_hidden_layers: fields.required("num_hidden_layers")?,
            num_attention_heads: fields.required("num_attention_heads")?,
            max_position_embeddings: fields.required("max_position_embeddings")?,
            type_vocab_size: fields.or("type_vocab_size", 0)?,
            layer_norm_eps: fields.or("layer_norm_eps", 1e-7)?,
            activation: activation(fields, "hidden_act", "gelu")?,
            max_relative_positions: fields.or("max_relative_positions", -1)?,
            position_buckets: fields.or("position_buckets", -1)?,
            pos_att_type: pos_att_type(fields)?,
            position_biased_input: fields.or("position_biased_input", true)?,
            normalizes_relative: norm_of_relative
                .to_lowercase()
                .split('|')
                .any(|kind| kind.trim() == "layer_norm"),
        };
        config.sizes().check(fields.path(), config.num_attention_heads)?;
        // Their defaults are others, which are not supported.
        for field in ["relative_attention", "share_att_key"] {
            if !fields.or(field, false)? {
                return Err(fields.not_supported(field, &false, &true));
            }
        }
        fields.only("conv_kernel_size", &0)?;
        fields.only("embedding_size", &config.hidden_size)?;
        fields.only("pooler_hidden_size", &config.hidden_size)?;
        fields.only("attention_head_size", &(config.hidden_size / config.num_attention_heads))?;
        fields.without_effect(&[
            "conv_act",
            "conv_groups",
            "legacy",
            "pad_token_id",
            "padding_idx",
            "pooler_dropout",
        ]);
        Ok(config)
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            positions: self.max_position_embeddings,
            types: self.type_vocab_size,
        }
    }

    /// The scores of the longest sequence, a token: each of its kinds, its gathers and what is made of them, in f32.
    pub(super) fn score_bytes_per_token(&self) -> usize {
        const TABLES: usize = 8;
        let row = self.num_attention_heads.saturating_mul(self.max_position_embeddings);
        row.saturating_mul(TABLES * size_of::<f32>())
    }

    /// Whether scores have that part.
    fn attends(&self, kind: &str) -> bool {
        self.pos_att_type.iter().any(|other| other == kind)
    }

    /// The largest distance that rows distinguish; all farther ones share its row.
    fn distance_max(&self) -> usize {
        usize::try_from(self.max_relative_positions)
            .ok()
            .filter(|&most| most >= 1)
            .unwrap_or(self.max_position_embeddings)
    }

    /// Relative positions on each side.
    fn span(&self) -> usize {
        usize::try_from(self.position_buckets)
            .ok()
            .filter(|&most| most > 0)
            .unwrap_or(self.distance_max())
    }

    /// The row of the relative embeddings for a distance, of which there are two spans: nearer ones have their own,
    /// those beyond half the span share by the logarithm.
    fn row(&self, query_minus_key: isize) -> u32 {
        let span = self.span() as isize;
        let distance = if self.position_buckets > 0 && self.distance_max() > 0 {
            let middle = span / 2;
            if query_minus_key.abs() <= middle {
                query_minus_key
            } else {
                let far = query_minus_key.unsigned_abs() as f32;
                let middle = middle as f32;
                let reach = ((self.distance_max() - 1) as f32 / middle).ln();
                let steps = ((far / middle).ln() / reach * (middle - 1.0)).ceil() + middle;
                steps as isize * query_minus_key.signum()
            }
        } else {
            query_minus_key
        };
        (distance + span).clamp(0, 2 * span - 1) as u32
    }
}

/// A list, or one string with bars between.
fn pos_att_type(fields: &mut Fields) -> Result<Vec<String>, EngineError> {
    let kinds: Vec<String> = match fields.or("pos_att_type", Value::Null)? {
        Value::Null => Vec::new(),
        Value::String(kinds) => {
            kinds.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect()
        }
        other => {
            let list = other.as_array().map(Vec::as_slice).unwrap_or_default();
            let kinds: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            kinds.unwrap_or_default().into_iter().map(ToOwned::to_owned).collect()
        }
    };
    match kinds.iter().find(|kind| !matches!(kind.as_str(), "c2p" | "p2c" | "")) {
        Some(other) => Err(fields.not_supported("pos_att_type", other, &"c2p, p2c")),
        None => Ok(kinds),
    }
}

/// A model's layers.
pub(super) struct Deberta {
    hidden: usize,
    heads: usize,
    words: Tensor,
    positions: Option<Tensor>,
    types: Option<Tensor>,
    embedding_norm: LayerNorm,
    /// The divisor of scores: the root of a head's size times the number of their kinds.
    divisor: f64,
    /// The row of the relative embeddings for each possible distance; the middle entry is for distance 0.
    rows: Vec<u32>,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Linear,
    /// `[heads, dim, 2 * span]`: relative positions as keys for queries, and as queries for keys.
    position_keys: Option<Tensor>,
    position_queries: Option<Tensor>,
    attention_out: LinearLayerNorm,
    feed_forward: FeedForward,
}

impl Deberta {
    pub(super) fn load(config: &DebertaConfig, named: &Named<'_>) -> Result<Self, EngineError> {
        let hidden = config.hidden_size;
        let heads = config.num_attention_heads;
        let relative =
            named.table("encoder.rel_embeddings", config.span().saturating_mul(2), hidden)?;
        let relative = if config.normalizes_relative {
            named
                .norm("encoder.LayerNorm", hidden, config.layer_norm_eps, true)?
                .forward(&relative)?
        } else {
            relative
        };
        let kinds = ["c2p", "p2c"].iter().filter(|kind| config.attends(kind)).count();
        let reach = config.max_position_embeddings as isize - 1;
        let table = |name: &str, rows: usize| {
            (rows > 0).then(|| named.table(&format!("embeddings.{name}"), rows, hidden)).transpose()
        };
        let positions =
            if config.position_biased_input { config.max_position_embeddings } else { 0 };
        Ok(Self {
            hidden,
            heads,
            words: named.table("embeddings.word_embeddings", config.vocab_size, hidden)?,
            positions: table("position_embeddings", positions)?,
            types: table("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: named.norm(
                "embeddings.LayerNorm",
                hidden,
                config.layer_norm_eps,
                true,
            )?,
            divisor: ((hidden / heads * (1 + kinds)) as f64).sqrt(),
            rows: (-reach..=reach).map(|distance| config.row(distance)).collect(),
            layers: (0..config.num_hidden_layers)
                .map(|index| Layer::load(config, named, index, &relative))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Attention within one sequence: `qkv` is its rows.
    fn attend(&self, layer: &Layer, qkv: &Tensor) -> Result<Tensor, EngineError> {
        let tokens = qkv.dims()[0];
        let dim = self.hidden / self.heads;
        let part = |index: usize| {
            let rows = qkv.narrow(1, index * self.hidden, self.hidden)?;
            rows.reshape((tokens, self.heads, dim))?.transpose(0, 1)?.contiguous()
        };
        let queries = part(0)?;
        let keys = part(1)?;
        let values = part(2)?;
        let mut scores = queries.matmul(&keys.t()?)?;
        let index = self.rows_of(tokens)?;
        if let Some(position_keys) = &layer.position_keys {
            scores = (scores + queries.matmul(position_keys)?.gather(&index, D::Minus1)?)?;
        }
        if let Some(position_queries) = &layer.position_queries {
            // A key looks at its queries: the distance is the same, read by columns.
            let index = index.transpose(1, 2)?.contiguous()?;
            let by_keys = keys.matmul(position_queries)?.gather(&index, D::Minus1)?;
            scores = (scores + by_keys.transpose(1, 2)?)?;
        }
        let scores = (scores / self.divisor)?;
        let powers = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let probabilities = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let context = probabilities.matmul(&values)?;
        Ok(context.transpose(0, 1)?.reshape((tokens, self.hidden))?)
    }

    /// `[heads, queries, keys]`: the row for each query's distance to each key.
    fn rows_of(&self, tokens: usize) -> Result<Tensor, EngineError> {
        let middle = self.rows.len() / 2;
        let rows: Vec<u32> = (0..tokens)
            .flat_map(|query| (0..tokens).map(move |key| middle + query - key))
            .map(|distance| self.rows[distance])
            .collect();
        let rows = Tensor::from_vec(rows, (1, tokens, tokens), &Device::Cpu)?;
        Ok(rows.repeat((self.heads, 1, 1))?)
    }
}

impl Layer {
    fn load(
        config: &DebertaConfig,
        named: &Named<'_>,
        index: usize,
        relative: &Tensor,
    ) -> Result<Self, EngineError> {
        let hidden = config.hidden_size;
        let inner = config.intermediate_size;
        let below = |name: &str| format!("encoder.layer.{index}.{name}");
        let projection = |role: &str| below(&format!("attention.self.{role}_proj"));
        let positions = |role: &str, kind: &str| -> Result<Option<Tensor>, EngineError> {
            if !config.attends(kind) {
                return Ok(None);
            }
            let linear = named.linear(&[projection(role)], [hidden; 2], Activation::None, true)?;
            let heads = config.num_attention_heads;
            let rows = linear.forward(relative)?;
            let rows = rows.reshape((2 * config.span(), heads, hidden / heads))?;
            Ok(Some(rows.permute((1, 2, 0))?.contiguous()?))
        };
        let closed = |linear: &str, norm: &str, inputs| {
            let names = [below(linear), below(norm)];
            let names = [names[0].as_str(), &names[1]];
            named.linear_layer_norm(names, [inputs, hidden], config.layer_norm_eps, true)
        };
        let out = "attention.output.dense";
        let out_norm = "attention.output.LayerNorm";
        Ok(Self {
            qkv: named.linear(
                &["query", "key", "value"].map(projection),
                [hidden; 2],
                Activation::None,
                true,
            )?,
            position_keys: positions("key", "c2p")?,
            position_queries: positions("query", "p2c")?,
            attention_out: closed(out, out_norm, hidden)?,
            feed_forward: FeedForward {
                up: named.linear(
                    &[below("intermediate.dense")],
                    [hidden, inner],
                    config.activation,
                    true,
                )?,
                down: closed("output.dense", "output.LayerNorm", inner)?,
            },
        })
    }
}

impl Layers for Deberta {
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        let tokens = sequences.token_ids.len();
        let hidden = self.hidden;
        let state = space.take(Slot::Hidden, tokens, hidden)?;
        if tokens == 0 {
            return Ok(state);
        }
        let attended = space.take(Slot::Attended, tokens, hidden)?;
        let qkv = space.take(Slot::Qkv, tokens, 3 * hidden)?;
        let projected = space.take(Slot::Projected, tokens, hidden)?;
        EmbedLayerNorm {
            token_ids: sequences.token_ids,
            type_ids: sequences.type_ids,
            cu_seqlens: sequences.cu_seqlens,
            first_position: 0,
            norm: &self.embedding_norm,
        }
        .forward_into(&self.words, self.positions.as_ref(), self.types.as_ref(), &state)?;
        for layer in &self.layers {
            layer.qkv.forward_into(&state, &qkv)?;
            let ranges = sequences.cu_seqlens.ranges().filter(|range| !range.is_empty());
            let contexts = ranges
                .map(|range| self.attend(layer, &qkv.narrow(0, range.start, range.len())?))
                .collect::<Result<Vec<_>, _>>()?;
            let contexts = Tensor::cat(&contexts, 0)?;
            layer.attention_out.forward_into(&contexts, &state, &projected, &attended)?;
            let inner = space.take(Slot::Inner, tokens, layer.feed_forward.up.outputs())?;
            layer.feed_forward.forward_into(&attended, &inner, &projected, &state)?;
        }
        Ok(state)
    }
}
