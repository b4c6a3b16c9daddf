//! The fields of `config.json`, from a GGUF's settings. They are those that transformers would have written, so that a
//! family reads both formats by one function; what a file doesn't say is what its family has in transformers.

use serde_json::{Map, Value, json};

use crate::error::EngineError;
use crate::load::gguf::family::Family;
use crate::load::gguf::metadata::{Metadata, decimal};
use crate::load::tensors::Tensors;

/// The most layers, heads, positions and words of a model; no model has a tenth of these.
const LAYERS_MAX: usize = 4096;
const HEADS_MAX: usize = 65_536;
const SIZE_MAX: usize = 1 << 24;
const POSITIONS_MAX: usize = 1 << 30;

/// Where Llama 3's scaling of frequencies begins and ends, and the length that it starts from: the same in all its
/// models, and not in their files, which have the result.
const LLAMA3_LOW: f64 = 1.0;
const LLAMA3_HIGH: f64 = 4.0;
const LLAMA3_POSITIONS: f64 = 8192.0;
/// How far a factor of frequencies in a file may be from the computed one: its own precision and that of the program
/// that wrote it.
const FACTOR_DIFFERENCE_MAX: f64 = 1e-4;
/// Gemma 3's base of rotations in layers with a window, and how many layers there are to one without.
const GEMMA3_LOCAL_BASE: f64 = 10_000.0;
const GEMMA3_PATTERN: usize = 6;
/// The number of layers of Gemma 3 27B, which alone scales its queries by the width of a head in the residual stream.
const GEMMA3_27B_LAYERS: usize = 62;
/// The base of rotations that files without one mean.
const BASE: f64 = 10_000.0;

/// Reads settings of a family.
struct Keys<'a> {
    metadata: &'a Metadata,
    family: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family)
    }

    fn required(&self, name: &str, max: usize) -> Result<usize, EngineError> {
        self.metadata.required_size(&self.key(name), max)
    }

    fn size(&self, name: &str, max: usize) -> Result<Option<usize>, EngineError> {
        Ok(self.metadata.size(&self.key(name), max)?.filter(|&size| size > 0))
    }

    fn float(&self, name: &str) -> Result<Option<f64>, EngineError> {
        self.metadata.float(&self.key(name))
    }

    fn text(&self, name: &str) -> Result<Option<&str>, EngineError> {
        self.metadata.text(&self.key(name))
    }
}

/// A model's queries, keys and how wide they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
}

impl Heads {
    pub(crate) fn of(metadata: &Metadata, family: Family) -> Result<Self, EngineError> {
        let keys = Keys { metadata, family: family.name() };
        let queries = keys.required("attention.head_count", HEADS_MAX)?;
        let of_keys = keys.size("attention.head_count_kv", HEADS_MAX)?.unwrap_or(queries);
        let hidden = keys.required("embedding_length", SIZE_MAX)?;
        let rotated = match family {
            // Families that rotate whole heads.
            Family::Llama | Family::SmolLm3 => keys.size("rope.dimension_count", SIZE_MAX)?,
            _ => None,
        };
        let width = keys.size("attention.key_length", SIZE_MAX)?.or(rotated);
        let value_width = keys.size("attention.value_length", SIZE_MAX)?;
        let width = width.unwrap_or(hidden / queries);
        if value_width.is_some_and(|of_values| of_values != width) {
            let problem = format!(
                "{} = {}, expected {width}, the width of keys",
                keys.key("attention.value_length"),
                value_width.unwrap_or_default()
            );
            return Err(metadata.problem(problem));
        }
        Ok(Self { queries, keys: of_keys, width })
    }
}

/// The fields of `config.json`.
pub(crate) fn config(
    metadata: &Metadata,
    family: Family,
    tensors: &dyn Tensors,
) -> Result<Map<String, Value>, EngineError> {
    let keys = Keys { metadata, family: family.name() };
    if !family.has_experts() && keys.size("expert_count", SIZE_MAX)?.is_some() {
        let problem = format!(
            "{} > 0: {} has no experts here; supported: qwen3moe, gpt-oss",
            keys.key("expert_count"),
            family.name()
        );
        return Err(metadata.problem(problem));
    }
    // Files of models that embed or rerank name a pooling, of which 0 is none.
    if keys.size("pooling_type", SIZE_MAX)?.is_some() {
        let problem = format!(
            "{} > 0: models of vectors and scores are read from folders with config.json and safetensors",
            keys.key("pooling_type")
        );
        return Err(metadata.problem(problem));
    }
    let heads = Heads::of(metadata, family)?;
    let positions = keys.required("context_length", POSITIONS_MAX)?;
    let eps = keys.float("attention.layer_norm_rms_epsilon")?;
    let vocabulary = match keys.size("vocab_size", SIZE_MAX)? {
        Some(size) => size,
        None => metadata.texts_len("tokenizer.ggml.tokens").unwrap_or_default(),
    };
    let activation = if family == Family::Gemma3 { "gelu_pytorch_tanh" } else { "silu" };
    let has_bias = |part| tensors.contains(&format!("model.layers.0.{part}.bias"));
    let mut fields = Map::new();
    let mut set = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    set("model_type", json!(family.model_type()));
    set("vocab_size", json!(vocabulary));
    set("hidden_size", json!(keys.required("embedding_length", SIZE_MAX)?));
    set("intermediate_size", json!(inner(&keys, family)?));
    set("num_hidden_layers", json!(keys.required("block_count", LAYERS_MAX)?));
    set("num_attention_heads", json!(heads.queries));
    set("num_key_value_heads", json!(heads.keys));
    set("head_dim", json!(heads.width));
    set("max_position_embeddings", json!(positions));
    set("rms_norm_eps", json!(eps.unwrap_or(1e-6)));
    set("rope_theta", json!(keys.float("rope.freq_base")?.unwrap_or(BASE)));
    set("tie_word_embeddings", json!(!tensors.contains("lm_head.weight")));
    let name = if family == Family::Gemma3 { "hidden_activation" } else { "hidden_act" };
    set(name, json!(activation));
    match family {
        Family::Llama | Family::SmolLm3 | Family::Qwen3 | Family::Qwen3Moe | Family::GptOss => {
            set("attention_bias", json!(has_bias("self_attn.q_proj")));
        }
        Family::Qwen2 | Family::Gemma3 | Family::Phi3 => {}
    }
    if family == Family::Llama {
        set("mlp_bias", json!(has_bias("mlp.down_proj")));
    }
    if let Some(scaling) = scaling(tensors, &keys, heads, positions)? {
        set("rope_scaling", scaling);
    }
    match family {
        Family::Gemma3 => of_gemma3(&keys, heads, &mut fields)?,
        Family::Phi3 => of_phi3(&keys, heads, positions, &mut fields)?,
        Family::Qwen3Moe | Family::GptOss => {
            of_experts(&keys, family, tensors, &mut fields)?;
        }
        _ => {}
    }
    Ok(fields)
}

/// Values inside a feed-forward half without experts; of a family whose layers all have them, inside an expert.
fn inner(keys: &Keys<'_>, family: Family) -> Result<usize, EngineError> {
    let of_experts = keys.size("expert_feed_forward_length", SIZE_MAX)?;
    match of_experts.filter(|_| family == Family::GptOss) {
        Some(inner) => Ok(inner),
        None => keys.required("feed_forward_length", SIZE_MAX),
    }
}

fn of_experts(
    keys: &Keys<'_>,
    family: Family,
    tensors: &dyn Tensors,
    fields: &mut Map<String, Value>,
) -> Result<(), EngineError> {
    let refused = |name: &str, value: usize, supported: &str| {
        let problem =
            format!("{} = {value} is not supported; supported: {supported}", keys.key(name));
        Err(keys.metadata.problem(problem))
    };
    // The softmax of all results, or of those that were chosen.
    let kind = if family == Family::GptOss { 3 } else { 1 };
    if let Some(other) =
        keys.size("expert_gating_func", SIZE_MAX)?.filter(|&of_file| of_file != kind)
    {
        return refused("expert_gating_func", other, &kind.to_string());
    }
    for name in ["expert_shared_count", "expert_group_count"] {
        if let Some(count) = keys.size(name, SIZE_MAX)? {
            return refused(name, count, "0");
        }
    }
    let mut set = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    set("num_local_experts", json!(keys.required("expert_count", SIZE_MAX)?));
    set("num_experts_per_tok", json!(keys.required("expert_used_count", SIZE_MAX)?));
    if family == Family::GptOss {
        if let Some(window) = keys.size("attention.sliding_window", POSITIONS_MAX)? {
            set("sliding_window", json!(window));
        }
        return Ok(());
    }
    let inner = keys.required("expert_feed_forward_length", SIZE_MAX)?;
    set("moe_intermediate_size", json!(inner));
    // Not in files: programs that read them divide by the sum.
    set("norm_topk_prob", json!(true));
    let layers = keys.required("block_count", LAYERS_MAX)?;
    let is_dense =
        |layer: &usize| tensors.contains(&format!("model.layers.{layer}.mlp.gate_proj.weight"));
    set("mlp_only_layers", json!((0..layers).filter(is_dense).collect::<Vec<_>>()));
    Ok(())
}

fn of_gemma3(
    keys: &Keys<'_>,
    heads: Heads,
    fields: &mut Map<String, Value>,
) -> Result<(), EngineError> {
    let layers = keys.required("block_count", LAYERS_MAX)?;
    let hidden = keys.required("embedding_length", SIZE_MAX)?;
    let scaled = if layers == GEMMA3_27B_LAYERS { hidden / heads.queries } else { heads.width };
    let local = keys.float("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_BASE);
    let pattern = keys.size("attention.sliding_window_pattern", LAYERS_MAX)?;
    fields.insert("query_pre_attn_scalar".to_owned(), json!(scaled));
    fields.insert("rope_local_base_freq".to_owned(), json!(local));
    fields.insert("sliding_window_pattern".to_owned(), json!(pattern.unwrap_or(GEMMA3_PATTERN)));
    if let Some(window) = keys.size("attention.sliding_window", POSITIONS_MAX)? {
        fields.insert("sliding_window".to_owned(), json!(window));
    }
    if let Some(cap) = keys.float("final_logit_softcapping")? {
        fields.insert("final_logit_softcapping".to_owned(), json!(cap));
    }
    Ok(())
}

fn of_phi3(
    keys: &Keys<'_>,
    heads: Heads,
    positions: usize,
    fields: &mut Map<String, Value>,
) -> Result<(), EngineError> {
    let rotated = keys.size("rope.dimension_count", SIZE_MAX)?.unwrap_or(heads.width);
    fields.insert("partial_rotary_factor".to_owned(), json!(rotated as f64 / heads.width as f64));
    let original = keys.size("rope.scaling.original_context_length", POSITIONS_MAX)?;
    let original = original.unwrap_or(positions);
    fields.insert("original_max_position_embeddings".to_owned(), json!(original));
    if let Some(window) = keys.size("attention.sliding_window", POSITIONS_MAX)? {
        fields.insert("sliding_window".to_owned(), json!(window));
    }
    Ok(())
}

/// How frequencies are scaled for longer texts.
fn scaling(
    tensors: &dyn Tensors,
    keys: &Keys<'_>,
    heads: Heads,
    positions: usize,
) -> Result<Option<Value>, EngineError> {
    let metadata = keys.metadata;
    let rotated = keys.size("rope.dimension_count", SIZE_MAX)?.unwrap_or(heads.width);
    let factors = |name: &str| -> Result<Vec<f64>, EngineError> {
        let factors = tensors.f32(name, &[rotated / 2])?.to_vec1::<f32>()?;
        Ok(factors.into_iter().map(decimal).collect())
    };
    if tensors.contains("rope_factors_long.weight") {
        let long = factors("rope_factors_long.weight")?;
        let short = factors("rope_factors_short.weight")?;
        return Ok(Some(
            json!({ "rope_type": "longrope", "long_factor": long, "short_factor": short }),
        ));
    }
    if tensors.contains("rope_freqs.weight") {
        let base = keys.float("rope.freq_base")?.unwrap_or(BASE);
        return llama3(metadata, &factors("rope_freqs.weight")?, base).map(Some);
    }
    let Some(kind) = keys.text("rope.scaling.type")?.filter(|kind| *kind != "none") else {
        // Files of old say only this of a linear scaling.
        let factor = keys.float("rope.scale_linear")?;
        return Ok(factor.map(|factor| json!({ "rope_type": "linear", "factor": factor })));
    };
    let factor = keys.float("rope.scaling.factor")?.unwrap_or(1.0);
    let original = keys.size("rope.scaling.original_context_length", POSITIONS_MAX)?;
    match kind {
        "linear" => Ok(Some(json!({ "rope_type": "linear", "factor": factor }))),
        "yarn" => {
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original.unwrap_or(positions),
            });
            if keys.family == Family::GptOss.name() {
                // The one family that doesn't round to whole pairs; files don't say it.
                scaling["truncate"] = json!(false);
            }
            let settings = [
                ("attention_factor", "rope.scaling.attn_factor"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
            ];
            for (field, key) in settings {
                if let Some(value) = keys.float(key)? {
                    scaling[field] = json!(value);
                }
            }
            Ok(Some(scaling))
        }
        _ => Err(metadata.problem(format!(
            "{} = {kind} is not supported; supported: none, linear, yarn",
            keys.key("rope.scaling.type")
        ))),
    }
}

/// Llama 3's scaling, of which a file has the factor of each frequency. Its own numbers are found by computing these.
fn llama3(metadata: &Metadata, factors: &[f64], base: f64) -> Result<Value, EngineError> {
    let largest = factors.iter().copied().fold(1.0, f64::max);
    let count = factors.len() as f64;
    let fits = factors.iter().enumerate().all(|(i, &factor)| {
        let turns = LLAMA3_POSITIONS / (std::f64::consts::TAU * base.powf(i as f64 / count));
        let smooth = ((turns - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / largest + smooth);
        (factor / expected - 1.0).abs() <= FACTOR_DIFFERENCE_MAX
    });
    if !fits {
        let problem = "rope_freqs.weight has other factors than Llama 3's scaling";
        return Err(metadata.problem(problem.to_owned()));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_POSITIONS as usize,
    }))
}
