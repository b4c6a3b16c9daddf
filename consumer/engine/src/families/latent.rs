//! Multi-head latent attention (`DeepSeek`-V2) with its projections of keys and values absorbed: what is remembered of
//! a token is the low-rank state that they are made of, and one key that turns. Queries are brought to the width of
//! that state instead, and what attention gives is brought from there to values.

use candle_core::{IndexOp, Tensor};
use forebay_kernels::{
    HeadLinear, LatentIntoPages, Linear, PagedAttention, Pages, RmsNorm, Rotary,
};

use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::decoder_config::DecoderConfig;
use crate::families::decoder_tensors::Named;
use crate::families::latent_config::{EPS, LatentConfig};

/// One layer's weights.
pub(super) struct LatentAttention {
    config: LatentConfig,
    heads: usize,
    low_rank: Option<LowRank>,
    /// Of the low-rank state where there is one, else of the layer's.
    queries: Linear,
    /// The low-rank state, and the key that turns.
    latent: Linear,
    norm: RmsNorm,
    /// Each head's projection of keys, from the query's side.
    absorbed_keys: HeadLinear,
    /// Each head's projection of values, behind attention.
    values: HeadLinear,
}

/// The low-rank state of queries.
struct LowRank {
    down: Linear,
    norm: RmsNorm,
}

impl LatentAttention {
    pub(super) fn load(
        latent: LatentConfig,
        config: &DecoderConfig,
        name: &dyn Fn(&str) -> String,
        named: &Named<'_>,
    ) -> Result<Self, EngineError> {
        let DecoderConfig { hidden, heads, qkv_bias, .. } = *config;
        let LatentConfig { q_rank, rank, plain, value, .. } = latent;
        let linear = |part: &str, [outputs, inputs]: [usize; 2], has_bias| {
            named.linear(&[(name(part), outputs)], inputs, has_bias)
        };
        let low_rank = |width| -> Result<LowRank, EngineError> {
            Ok(LowRank {
                down: linear("self_attn.q_a_proj", [width, hidden], qkv_bias)?,
                norm: named.norm_with(&name("self_attn.q_a_layernorm"), width, EPS)?,
            })
        };
        let queries = if q_rank.is_some() { "self_attn.q_b_proj" } else { "self_attn.q_proj" };
        let query_width = heads * latent.query();
        let both = named
            .weight(&name("self_attn.kv_b_proj"), &[heads * (plain + value), rank])?
            .reshape((heads, plain + value, rank))?;
        let keys = both.i((.., ..plain, ..))?.transpose(1, 2)?.contiguous()?;
        let values = both.i((.., plain.., ..))?.contiguous()?;
        Ok(Self {
            config: latent,
            heads,
            low_rank: q_rank.map(low_rank).transpose()?,
            queries: linear(queries, [query_width, q_rank.unwrap_or(hidden)], false)?,
            latent: linear("self_attn.kv_a_proj_with_mqa", [latent.key(), hidden], qkv_bias)?,
            norm: named.norm_with(&name("self_attn.kv_a_layernorm"), rank, EPS)?,
            absorbed_keys: HeadLinear::new(&keys, named.states())?,
            values: HeadLinear::new(&values, named.states())?,
        })
    }

    /// Of `states`, `[tokens, hidden]`: writes keys to `pages` and what attention gives, `[tokens, heads * value]`, to
    /// `context`.
    pub(super) fn forward(
        &self,
        attention: PagedAttention<'_>,
        rotary: Option<&Rotary>,
        states: &Tensor,
        space: &mut Workspace,
        pages: &Pages,
        context: &Tensor,
    ) -> Result<(), EngineError> {
        let Self { config, heads, .. } = *self;
        let rows = attention.rows;
        let tokens = rows.tokens();
        let q = space.take(Slot::Qkv, tokens, heads * config.query())?;
        if let Some(LowRank { down, norm }) = &self.low_rank {
            let width = config.q_rank.unwrap_or_default();
            let low = space.take(Slot::LowRank, tokens, width)?;
            let normed = space.take(Slot::LowRankNormed, tokens, width)?;
            down.forward_into(states, &low)?;
            norm.forward_into(&low, &normed)?;
            self.queries.forward_into(&normed, &q)?;
        } else {
            self.queries.forward_into(states, &q)?;
        }
        let latent = space.take(Slot::Latent, tokens, config.key())?;
        self.latent.forward_into(states, &latent)?;
        let query = space.take(Slot::Absorbed, tokens, heads * config.key())?;
        self.absorbed_keys.forward_into(&q, &query)?;
        let into_pages = LatentIntoPages {
            rotary,
            is_interleaved: config.is_interleaved,
            norm: &self.norm,
            heads,
        };
        into_pages.apply(&latent, &q, rows, &query, pages)?;
        let weighed = space.take(Slot::Weighed, tokens, heads * config.rank)?;
        PagedAttention { kv_heads: 1, ..attention }.forward_into(&query, pages, &weighed)?;
        Ok(self.values.forward_into(&weighed, context)?)
    }
}
