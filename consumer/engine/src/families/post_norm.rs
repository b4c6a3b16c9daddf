//! BERT and its kin over fused operations: seven a layer, on packed tokens, each half closed by a LayerNorm.

use candle_core::Tensor;
use forebay_kernels::{
    Activation, CuSeqlens, EmbedLayerNorm, FeedForward, Gate, LayerNorm, Linear, LinearLayerNorm,
    Rotary, VarlenAttention,
};

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::named::Named;
use crate::families::post_norm_config::{Biases, GateOrder, PositionEncoding, PostNormConfig};
use crate::families::relative;
use crate::families::rope::RotaryBase;

/// A model's layers.
pub(super) struct PostNorm {
    hidden: usize,
    heads: usize,
    first_position: usize,
    padding: Option<u32>,
    words: Tensor,
    positions: Option<Tensor>,
    types: Option<Tensor>,
    embedding_norm: LayerNorm,
    rotary: Option<Rotations>,
    distance_bias: Option<Tensor>,
    layers: Vec<Layer>,
}

/// The rotations of queries and keys.
struct Rotations {
    base: RotaryBase,
    head_size: usize,
    /// Those of sequences up to the trained length.
    table: Rotary,
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
            PositionEncoding::Rotary(_) | PositionEncoding::Ntk(_) | PositionEncoding::Alibi => {
                None
            }
        };
        let types = (sizes.types > 0)
            .then(|| named.table("embeddings.token_type_embeddings", sizes.types, hidden))
            .transpose()?;
        let rotary = match config.position_encoding {
            PositionEncoding::Rotary(base) => {
                let head_size = hidden / heads;
                let trained = base.scaling.map_or(sizes.positions, |scaling| scaling.trained);
                let positions = trained.min(sizes.positions);
                let table = named.rotary(head_size, base.base, positions)?;
                Some(Rotations { base, head_size, table })
            }
            PositionEncoding::Ntk(ntk) => {
                let head_size = hidden / heads;
                let table = named.rotary_of(&ntk.frequencies(head_size), sizes.positions)?;
                Some(Rotations { base: ntk.unscaled(), head_size, table })
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
            padding: config.padding,
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

    /// Word, position and type rows, summed and normalised.
    fn embed(&self, sequences: Sequences<'_>, state: &Tensor) -> Result<(), EngineError> {
        // A table of one row has one type for all (RoBERTa).
        let has_types = self.types.as_ref().is_some_and(|types| types.dims()[0] > 1);
        let type_ids = sequences.type_ids.filter(|_| has_types);
        let embed = |begin: usize, cu_seqlens: &CuSeqlens, first_position| {
            let tokens = begin..begin + cu_seqlens.tokens();
            let operation = EmbedLayerNorm {
                token_ids: &sequences.token_ids[tokens.clone()],
                type_ids: type_ids.map(|ids| &ids[tokens.clone()]),
                cu_seqlens,
                first_position,
                norm: &self.embedding_norm,
            };
            let state = state.narrow(0, begin, tokens.len())?;
            let tables = (self.positions.as_ref(), self.types.as_ref());
            Ok::<_, EngineError>(operation.forward_into(&self.words, tables.0, tables.1, &state)?)
        };
        match self.padding.filter(|padding| sequences.token_ids.contains(padding)) {
            None => embed(0, sequences.cu_seqlens, self.first_position),
            Some(padding) => runs(sequences, padding, self.first_position)
                .iter()
                .try_for_each(|run| embed(run.begin, &run.cu_seqlens, run.first_position)),
        }
    }
}

/// Tokens whose positions count up from a first one.
struct Run {
    begin: usize,
    cu_seqlens: CuSeqlens,
    first_position: usize,
}

/// The runs of sequences in which somebody wrote the padding token: it stands at the position before the first, and the
/// tokens after it go on counting as if it weren't there.
fn runs(sequences: Sequences<'_>, padding: u32, first_position: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    for range in sequences.cu_seqlens.ranges() {
        let mut position = first_position;
        let mut begin = range.start;
        for part in sequences.token_ids[range].chunk_by(|a, b| *a != padding && *b != padding) {
            let mut cu_seqlens = CuSeqlens::new();
            cu_seqlens.push(part.len());
            let is_padding = part[0] == padding;
            let first = if is_padding { first_position - 1 } else { position };
            runs.push(Run { begin, cu_seqlens, first_position: first });
            begin += part.len();
            position += if is_padding { 0 } else { part.len() };
        }
    }
    runs
}

impl Rotations {
    /// For each sequence beyond the trained length the rotations of its own base, with its number.
    fn long(
        &self,
        cu_seqlens: &CuSeqlens,
        beside: &Tensor,
    ) -> Result<Vec<(usize, Rotary)>, EngineError> {
        let Some(scaling) = self.base.scaling else { return Ok(Vec::new()) };
        let long = cu_seqlens.ranges().map(|range| range.len()).enumerate();
        let long = long.filter(|&(_, tokens)| tokens > scaling.trained);
        long.map(|(sequence, tokens)| {
            let base = self.base.of(tokens, self.head_size);
            let rotary = Rotary::new(self.head_size, base, tokens)?.on(beside.device())?;
            Ok((sequence, rotary))
        })
        .collect()
    }

    fn apply(
        &self,
        qkv: &Tensor,
        cu_seqlens: &CuSeqlens,
        heads: usize,
        long: &[(usize, Rotary)],
    ) -> Result<(), EngineError> {
        if long.is_empty() {
            return Ok(self.table.apply(qkv, cu_seqlens, heads)?);
        }
        for (sequence, range) in cu_seqlens.ranges().enumerate() {
            let own = long.iter().find(|(of, _)| *of == sequence).map(|(_, rotary)| rotary);
            let mut alone = CuSeqlens::new();
            alone.push(range.len());
            let part = qkv.narrow(0, range.start, range.len())?;
            own.unwrap_or(&self.table).apply(&part, &alone, heads)?;
        }
        Ok(())
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
        let gated = naming.gate != GateOrder::None;
        let gate = gated.then_some(Gate { activation: config.activation });
        let activation = if gated { Activation::None } else { config.activation };
        // Rotated queries and keys need their bias before the rotation.
        let attention_adds_bias = has_bias
            && named.prefers_bias_in_attention()
            && !matches!(
                config.position_encoding,
                PositionEncoding::Rotary(_) | PositionEncoding::Ntk(_)
            );
        let qkv = all(naming.qkv);
        let qkv_outputs = 3 * hidden / naming.qkv.len();
        let up_outputs = (1 + usize::from(gated)) * inner / naming.up.len();
        let up_has_bias = naming.biases == Biases::All;
        let up = if naming.gate == GateOrder::Last {
            named.linear_halves_swapped(&below(naming.up[0]), [hidden, up_outputs], up_has_bias)?
        } else {
            named.linear(&all(naming.up), [hidden, up_outputs], activation, up_has_bias)?
        };
        Ok(Self {
            qkv: named.linear(
                &qkv,
                [hidden, qkv_outputs],
                Activation::None,
                has_bias && !attention_adds_bias,
            )?,
            qkv_bias: attention_adds_bias.then(|| named.bias(&qkv, qkv_outputs)).transpose()?,
            attention_out: closed(naming.attention_out, hidden)?,
            feed_forward: FeedForward { up, down: closed(naming.down, inner)? },
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
        self.embed(sequences, &state)?;
        let long =
            self.rotary.as_ref().map(|rotary| rotary.long(cu_seqlens, &state)).transpose()?;
        let attention = VarlenAttention {
            distance_bias: self.distance_bias.as_ref(),
            seen: sequences.seen,
            ..VarlenAttention::new(cu_seqlens, self.heads)
        };
        for layer in &self.layers {
            layer.qkv.forward_into(&state, &qkv)?;
            if let Some(rotary) = &self.rotary {
                rotary.apply(&qkv, cu_seqlens, self.heads, long.as_deref().unwrap_or_default())?;
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
