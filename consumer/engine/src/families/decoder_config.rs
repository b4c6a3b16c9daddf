//! The dense decoders as data: every family is one way of filling in [`DecoderConfig`], which `decoder` turns into
//! layers.
//!
//! Fields, names and defaults are those of transformers 5, with the older names of fields beside them.

use candle_core::DType as TensorType;
use forebay_kernels::{Activation, PAGE_TOKENS, Pages};
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::families::decoder_rope::{Beside, DecoderRope};
use crate::families::latent_config::LatentConfig;
use crate::load::config::{activation, common};
use crate::load::fields::Fields;
use crate::load::fp8;

/// The decoders that the engine runs, as `model_type` names them.
pub(crate) const DECODERS: &[&str] = &[
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma3_text",
    "phi3",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "kimi_k2",
];

/// The kinds of layers, as `layer_types` and `rope_parameters` name them.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";
/// Gemma's field for attention to later tokens too.
const BOTH_WAYS: &str = "use_bidirectional_attention";

/// Several times as many layers as the largest dense model has.
const LAYERS_MAX: usize = 512;
/// No size of a model comes near it.
const SIZE_MAX: usize = 1 << 24;
/// Twice the largest in use.
const HEAD_SIZE_MAX: usize = 1 << 10;

/// A decoder's configuration.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of a family by itself
pub(crate) struct DecoderConfig {
    pub(crate) name: &'static str,
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    /// Values of the state inside the feed-forward half, after its gate.
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// The sizes of latent attention; `kv_heads` and `head_dim` don't count then.
    pub(crate) latent: Option<LatentConfig>,
    /// The most tokens of a sequence that the model can read.
    pub(crate) positions: usize,
    pub(crate) eps: f64,
    /// Of the gate.
    pub(crate) activation: Activation,
    /// Whether the head is the table of words; `None` where the weights decide.
    pub(crate) is_tied: Option<bool>,
    pub(crate) qkv_bias: bool,
    pub(crate) out_bias: bool,
    pub(crate) mlp_bias: bool,
    /// Whether queries, keys and values are one tensor, and the two halves of the feed-forward layer's input too.
    pub(crate) is_fused: bool,
    /// Whether each head of queries and keys is normalised.
    pub(crate) normalizes_heads: bool,
    /// Whether each half's result is normalised before it is added, too.
    pub(crate) normalizes_after: bool,
    /// Whether norms multiply by `1 + weight`.
    pub(crate) adds_one: bool,
    /// Whether words are multiplied by the root of the hidden size.
    pub(crate) scales_words: bool,
    /// The factor of scores, where it isn't one over the root of a head's size.
    pub(crate) scale: Option<f32>,
    /// The field by which every token sees those after it too; `None` where none does.
    pub(crate) bidirectional: Option<&'static str>,
    /// The token that fills texts up.
    pub(crate) pad: Option<u32>,
    /// Logits are bent to stay within it.
    pub(crate) logit_cap: Option<f32>,
    /// The rotations, which `layers` choose from.
    pub(super) ropes: Vec<DecoderRope>,
    pub(crate) layers: Vec<LayerConfig>,
}

/// The settings that differ from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerConfig {
    /// Which rotation; `None` for none.
    pub(crate) rope: Option<usize>,
    /// How many tokens attention sees, the own one among them; `None` for all.
    pub(crate) window: Option<usize>,
}

impl LayerConfig {
    /// With its window on either side, the own token among them, where `field` says that later tokens are seen too.
    fn both_ways(self, field: Option<&str>) -> Self {
        let window = self.window.map(|window| match field {
            None => window,
            Some(BOTH_WAYS) => window / 2 + 1,
            Some(_) => window.saturating_add(1),
        });
        Self { window, ..self }
    }
}

impl DecoderConfig {
    /// Takes the fields of a decoder's configuration, whose `model_type` is one of [`DECODERS`].
    pub(crate) fn parse(model_type: &str, fields: &mut Fields) -> Result<Self, EngineError> {
        let Some(&name) = DECODERS.iter().find(|name| **name == model_type) else {
            return Err(fields.not_supported("model_type", &model_type, &DECODERS.join(", ")));
        };
        let is_tied = fields.get("tie_word_embeddings")?;
        fp8::take_config(fields)?;
        common(fields)?;
        fields.without_effect(&[
            "attention_dropout",
            "embd_pdrop",
            "pretraining_tp", // of other weights' layout, which nothing has today
            "resid_pdrop",
        ]);
        let is_gemma = name == "gemma3_text";
        let [hidden, heads]: [usize; 2] =
            [fields.required("hidden_size")?, fields.required("num_attention_heads")?];
        let kv_heads = fields.get("num_key_value_heads")?.unwrap_or(kv_heads_of(name, heads));
        let latent = LatentConfig::parse(name, fields)?;
        let head_dim = match latent {
            Some(latent) => latent.turned, // what rotations are made for
            None => fields.get("head_dim")?.unwrap_or(head_dim_of(name, hidden, heads)),
        };
        let attention_bias = match name {
            "mistral" | "qwen2" | "phi3" => false,
            _ => fields.or("attention_bias", false)?,
        };
        let mlp_bias = matches!(name, "llama" | "smollm3") && fields.or("mlp_bias", false)?;
        let acts = if is_gemma {
            ["hidden_activation", "gelu_pytorch_tanh"]
        } else {
            ["hidden_act", "silu"]
        };
        let mut config = Self {
            name,
            vocabulary: fields.required("vocab_size")?,
            hidden,
            inner: fields.required("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            latent,
            positions: fields.required("max_position_embeddings")?,
            eps: fields.or("rms_norm_eps", if name == "phi3" { 1e-5 } else { 1e-6 })?,
            activation: activation(fields, acts[0], acts[1])?,
            is_tied,
            qkv_bias: attention_bias || name == "qwen2",
            out_bias: attention_bias,
            mlp_bias,
            is_fused: name == "phi3",
            normalizes_heads: is_gemma || name == "qwen3",
            normalizes_after: is_gemma,
            adds_one: is_gemma,
            scales_words: is_gemma,
            scale: None,
            bidirectional: bidirectional(is_gemma, fields)?,
            pad: pad(fields)?,
            logit_cap: None,
            ropes: Vec::new(),
            layers: Vec::new(),
        };
        if is_gemma {
            let scalar: f32 = fields.or("query_pre_attn_scalar", 256.0)?;
            config.scale = Some(scalar.sqrt().recip());
            config.logit_cap = fields.get("final_logit_softcapping")?;
            // Nothing reads it since Gemma 3.
            fields.only_empty("attn_logit_softcapping")?;
        }
        config.check(fields)?;
        let layers = layers(&config, fields)?;
        config.ropes = ropes(&config, fields)?;
        config.layers = layers.into_iter().map(|it| it.both_ways(config.bidirectional)).collect();
        if let Some(latent) = latent {
            let amplitude = config.ropes.first().map_or(1.0, |rope| rope.score_amplitude);
            config.scale = Some(latent.scale(amplitude));
            config.positions = latent.positions(config.positions);
        }
        Ok(config)
    }

    /// Refuses sizes that nothing can be computed with, or that no model has.
    fn check(&self, fields: &Fields) -> Result<(), EngineError> {
        let Self { vocabulary, hidden, inner, heads, kv_heads, head_dim, positions, .. } = *self;
        let sizes = [vocabulary, hidden, inner, heads, kv_heads, head_dim, positions];
        let problem = if sizes.contains(&0) {
            "a size is zero".to_owned()
        } else if sizes.iter().any(|&size| size > SIZE_MAX) {
            format!("a size is above {SIZE_MAX}")
        } else if !heads.is_multiple_of(kv_heads) {
            format!("{heads} heads of queries are not a multiple of {kv_heads} heads of keys")
        } else if self.latent.is_some() && kv_heads != heads {
            format!("{kv_heads} num_key_value_heads; in latent attention as many as heads, {heads}")
        } else if head_dim > HEAD_SIZE_MAX || !head_dim.is_multiple_of(2) {
            format!("heads of {head_dim} values; even numbers up to {HEAD_SIZE_MAX} are supported")
        } else if heads.saturating_mul(self.latent.map_or(head_dim, LatentConfig::widest))
            > SIZE_MAX
        {
            format!("{heads} heads of {head_dim} values")
        } else if self.scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0))
            || self.logit_cap.is_some_and(|cap| !(cap.is_finite() && cap > 0.0))
        {
            "query_pre_attn_scalar or final_logit_softcapping is not above 0".to_owned()
        } else if !(self.eps > 0.0 && self.eps < 1.0) {
            format!("rms_norm_eps is {}", self.eps)
        } else {
            return Ok(());
        };
        Err(fields.problem(problem))
    }

    /// The most tokens of a sequence that the model is meant for as it is: of one that turns longer texts otherwise,
    /// the trained length.
    pub(crate) fn positions_meant(&self) -> usize {
        let most = self.ropes.iter().filter_map(DecoderRope::positions_max).min();
        most.map_or(self.positions, |most| most.min(self.positions))
    }

    /// Bytes of a page in all layers.
    pub(crate) fn page_bytes(&self, dtype: TensorType) -> u64 {
        (self.layer_page_bytes(dtype) as u64).saturating_mul(self.layers.len() as u64)
    }

    fn layer_page_bytes(&self, dtype: TensorType) -> usize {
        match self.latent {
            Some(latent) => latent.page_bytes(dtype),
            None => Pages::page_bytes(self.kv_heads, self.head_dim, dtype),
        }
    }

    /// An upper bound of the memory, in bytes, that a row of a step takes while it is computed: states of a layer, and
    /// the logits of a row that picks.
    pub(crate) fn bytes_per_token(&self, dtype: TensorType) -> usize {
        let logit = dtype.size_in_bytes() + TensorType::F32.size_in_bytes();
        self.state_bytes_per_token(dtype) + self.vocabulary * logit
    }

    /// As [`Self::bytes_per_token`], of an encoder: without logits, and with keys and values of one layer, whose pages
    /// count as full.
    pub(crate) fn encoder_bytes_per_token(&self, dtype: TensorType) -> usize {
        let page = self.layer_page_bytes(dtype);
        self.state_bytes_per_token(dtype).saturating_add(page.div_ceil(PAGE_TOKENS))
    }

    fn state_bytes_per_token(&self, dtype: TensorType) -> usize {
        let attention = match self.latent {
            Some(latent) => latent.width(self.heads),
            None => self.qkv_width() + self.context_width(),
        };
        (4 * self.hidden + attention + 3 * self.inner) * dtype.size_in_bytes()
    }

    /// Values that a linear layer makes of a token for attention: queries, keys and values.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Values that attention gives of a token.
    pub(crate) fn context_width(&self) -> usize {
        self.heads * self.latent.map_or(self.head_dim, |latent| latent.value)
    }
}

/// The field by which every token sees those after it too.
fn bidirectional(is_gemma: bool, fields: &mut Fields) -> Result<Option<&'static str>, EngineError> {
    let is_causal = fields.or("is_causal", true)?;
    if is_gemma && fields.or(BOTH_WAYS, false)? {
        return Ok(Some(BOTH_WAYS));
    }
    Ok((!is_causal).then_some("is_causal"))
}

/// The token that fills texts up, where it is one.
fn pad(fields: &mut Fields) -> Result<Option<u32>, EngineError> {
    let id: Option<Value> = fields.get("pad_token_id")?;
    Ok(id.and_then(|id| u32::try_from(id.as_u64()?).ok()))
}

/// The layers: their windows, and which of the rotations they turn by.
fn layers(config: &DecoderConfig, fields: &mut Fields) -> Result<Vec<LayerConfig>, EngineError> {
    let count: usize = fields.required("num_hidden_layers")?;
    if count == 0 || count > LAYERS_MAX {
        return Err(
            fields.problem(format!("{count} num_hidden_layers; 1 to {LAYERS_MAX} are supported"))
        );
    }
    let is_null = fields.is_null("sliding_window");
    let window: Option<usize> = fields.get("sliding_window")?;
    if window == Some(0) {
        return Err(fields.problem("sliding_window is 0".to_owned()));
    }
    let all = |rope, window| vec![LayerConfig { rope, window }; count];
    match config.name {
        _ if config.latent.is_some() => Ok(all(Some(0), None)),
        "llama" => Ok(all(Some(0), None)),
        "phi3" => Ok(all(Some(0), window)),
        "mistral" => Ok(all(Some(0), window.or((!is_null).then_some(4096)))),
        "gemma3_text" => {
            let every = fields.or("sliding_window_pattern", 6)?;
            let every = fields.or("_sliding_window_pattern", every)?;
            let local = |index: usize| every == 0 || !(index + 1).is_multiple_of(every);
            let local = is_local(fields, count, local)?;
            let window = window.unwrap_or(4096);
            let layer = |&local: &bool| LayerConfig {
                rope: Some(usize::from(local)),
                window: local.then_some(window),
            };
            Ok(local.iter().map(layer).collect())
        }
        "smollm3" => {
            let turns = turns(fields, count)?;
            let slides = fields.or("use_sliding_window", false)? && window.is_some();
            let local = is_local(fields, count, |index| slides && !turns[index])?;
            let layer = |(&turns, local): (&bool, bool)| LayerConfig {
                rope: turns.then_some(0),
                window: window.filter(|_| slides && local),
            };
            Ok(turns.iter().zip(local).map(layer).collect())
        }
        _ => {
            let slides = fields.or("use_sliding_window", false)?;
            let first: usize = fields.or("max_window_layers", 28)?;
            let window = slides.then_some(window.or((!is_null).then_some(4096))).flatten();
            let local = is_local(fields, count, |index| window.is_some() && index >= first)?;
            let layer = |local| LayerConfig { rope: Some(0), window: window.filter(|_| local) };
            Ok(local.into_iter().map(layer).collect())
        }
    }
}

/// Which layers of a `SmolLM3` have positions: as `no_rope_layers` says, in which 1 means that a layer has them, or all
/// but every so many.
fn turns(fields: &mut Fields, count: usize) -> Result<Vec<bool>, EngineError> {
    let every: usize = fields.or("no_rope_layer_interval", 4)?;
    let Some(listed) = fields.get::<Vec<u8>>("no_rope_layers")? else {
        return Ok((1..=count).map(|index| every == 0 || !index.is_multiple_of(every)).collect());
    };
    if listed.len() < count {
        let problem = format!("{} no_rope_layers for {count} num_hidden_layers", listed.len());
        return Err(fields.problem(problem));
    }
    Ok(listed[..count].iter().map(|&turns| turns != 0).collect())
}

/// For each layer whether it attends to a window, as `layer_types` says, else by `default`.
fn is_local(
    fields: &mut Fields,
    count: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, EngineError> {
    let Some(kinds) = fields.get::<Vec<String>>("layer_types")? else {
        return Ok((0..count).map(default).collect());
    };
    if kinds.len() != count {
        let problem = format!("{} layer_types for {count} num_hidden_layers", kinds.len());
        return Err(fields.problem(problem));
    }
    let is_local = |kind: &String| match kind.as_str() {
        GLOBAL => Ok(false),
        LOCAL => Ok(true),
        _ => Err(fields.not_supported("layer_types", kind, &format!("{GLOBAL}, {LOCAL}"))),
    };
    kinds.iter().map(is_local).collect()
}

/// The rotations: one; of Gemma that of global layers, then that of local ones.
fn ropes(config: &DecoderConfig, fields: &mut Fields) -> Result<Vec<DecoderRope>, EngineError> {
    let is_gemma = config.name == "gemma3_text";
    let theta = fields.or(
        "rope_theta",
        match config.name {
            "smollm3" => 2e6,
            "gemma3_text" => 1e6,
            _ => 1e4,
        },
    )?;
    let local_theta = fields.or("rope_local_base_freq", 1e4)?;
    let beside = Beside {
        theta,
        partial: fields.or("partial_rotary_factor", 1.0)?,
        head_dim: config.head_dim,
        positions: config.positions,
        trained: fields.get("original_max_position_embeddings")?,
    };
    let scaling: Option<Map<String, Value>> = fields.get("rope_scaling")?;
    let parameters: Option<Map<String, Value>> = fields.get("rope_parameters")?;
    if !is_gemma {
        let parameters = scaling.or(parameters).unwrap_or_default();
        return Ok(vec![DecoderRope::parse(fields, parameters, beside)?]);
    }
    let mut kinds = parameters.unwrap_or_default();
    let mut of_kind = |kind: &str| match kinds.remove(kind).unwrap_or_default() {
        Value::Null => Ok(Map::new()),
        Value::Object(parameters) => Ok(parameters),
        other => Err(fields.not_supported("rope_parameters", &other, &"an object")),
    };
    let [mut global, local] = [of_kind(GLOBAL)?, of_kind(LOCAL)?];
    // Older versions scale the global layers alone.
    global.extend(scaling.unwrap_or_default());
    if let Some(other) = kinds.keys().next() {
        return Err(fields.not_supported("rope_parameters", other, &format!("{GLOBAL}, {LOCAL}")));
    }
    let local_beside = Beside { theta: local_theta, ..beside };
    Ok(vec![
        DecoderRope::parse(fields, global, beside)?,
        DecoderRope::parse(fields, local, local_beside)?,
    ])
}

/// The heads of keys where a configuration doesn't say, as in transformers.
fn kv_heads_of(name: &str, heads: usize) -> usize {
    match name {
        "mistral" => 8,
        "smollm3" | "gemma3_text" => 4,
        "qwen2" | "qwen3" => 32,
        _ => heads,
    }
}

/// The values of a head where a configuration doesn't say, as in transformers.
fn head_dim_of(name: &str, hidden: usize, heads: usize) -> usize {
    match name {
        "qwen3" => 128,
        "gemma3_text" => 256,
        _ => hidden.checked_div(heads).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
