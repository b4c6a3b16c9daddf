//! The sizes of latent attention, and the families that have it, as data.

use candle_core::DType as TensorType;
use forebay_kernels::Pages;

use crate::error::EngineError;
use crate::load::fields::Fields;

/// The families with latent attention, as `model_type` names them.
pub(crate) const LATENT: &[&str] =
    &["deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_k2"];

/// The family whose tokens attend to the keys that an indexer chooses, where there are more.
const INDEXED: &str = "deepseek_v32";

/// Several times the largest in use.
const SIZE_MAX: usize = 1 << 14;

/// Of the norms inside of attention, whatever `rms_norm_eps` says: as in transformers and in the models' own code.
pub(super) const EPS: f64 = 1e-6;

/// The sizes of latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatentConfig {
    /// Values of the low-rank state that queries are made of; `None` where they are made of the layer's.
    pub(crate) q_rank: Option<usize>,
    /// Values of the low-rank state that keys and values are made of.
    pub(crate) rank: usize,
    /// Values of a query's head that don't turn.
    pub(crate) plain: usize,
    /// Values of a query's head, and of the key that all heads share, that turn.
    pub(crate) turned: usize,
    /// Values of a head of attention's result.
    pub(crate) value: usize,
    /// Whether values that turn together come side by side.
    pub(crate) is_interleaved: bool,
    /// How many keys a token attends to at most: an indexer chooses among more, which is not supported, so that
    /// sequences are no longer.
    keys_max: Option<usize>,
}

impl LatentConfig {
    /// Takes the fields of a family with latent attention; `None` for others.
    pub(super) fn parse(name: &str, fields: &mut Fields) -> Result<Option<Self>, EngineError> {
        if !LATENT.contains(&name) {
            return Ok(None);
        }
        // What follows from the others.
        fields.without_effect(&["head_dim", "qk_head_dim"]);
        // A layer that guesses further tokens, which is not read.
        fields.without_effect(&["num_nextn_predict_layers", "num_mtp_layers"]);
        let latent = Self {
            q_rank: fields.get("q_lora_rank")?,
            rank: fields.required("kv_lora_rank")?,
            plain: fields.required("qk_nope_head_dim")?,
            turned: fields.required("qk_rope_head_dim")?,
            value: fields.required("v_head_dim")?,
            is_interleaved: fields.or("rope_interleave", true)?,
            keys_max: if name == INDEXED { Some(fields.or("index_topk", 2048)?) } else { None },
        };
        if name == INDEXED {
            fields.without_effect(&["index_head_dim", "index_n_heads", "layer_types"]);
        }
        let Self { q_rank, rank, plain, turned, value, keys_max, .. } = latent;
        if keys_max == Some(0) {
            return Err(fields.problem("index_topk is 0".to_owned()));
        }
        let sizes = [q_rank.unwrap_or(1), rank, plain, turned, value];
        if sizes.iter().any(|&size| size == 0 || size > SIZE_MAX) || !turned.is_multiple_of(2) {
            return Err(fields.problem(format!(
                "q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim and v_head_dim are {sizes:?}; 1 to \
                 {SIZE_MAX} are supported, the fourth an even number"
            )));
        }
        Ok(Some(latent))
    }

    /// The factor of scores, where what turns has an amplitude that is not in the angles.
    pub(super) fn scale(self, amplitude: f64) -> f32 {
        ((self.query() as f64).sqrt().recip() * amplitude * amplitude) as f32
    }

    /// How long sequences are at most, of a model that is made for so many positions.
    pub(super) fn positions(self, positions: usize) -> usize {
        self.keys_max.map_or(positions, |most| most.min(positions))
    }

    /// Values of a key, which is all that is remembered of a token.
    pub(crate) fn key(self) -> usize {
        self.rank + self.turned
    }

    /// Values of a query's head as its projection gives it.
    pub(crate) fn query(self) -> usize {
        self.plain + self.turned
    }

    /// Values of the widest state of a head.
    pub(super) fn widest(self) -> usize {
        self.key().max(self.query()).max(self.value)
    }

    /// Bytes of a layer's page.
    pub(crate) fn page_bytes(self, dtype: TensorType) -> usize {
        Pages::latent_page_bytes(self.key(), dtype)
    }

    /// Values of a token's states within attention of so many heads.
    pub(crate) fn width(self, heads: usize) -> usize {
        let head = self.query() + self.key() + self.rank + self.value;
        heads * head + 2 * self.q_rank.unwrap_or_default() + self.key()
    }
}
