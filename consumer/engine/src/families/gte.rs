//! GTE's own encoder (`NewModel`, of gte-*-en-v1.5, gte-multilingual and Snowflake's Arctic Embed m v2): layers of
//! `post_norm` with rotary positions and a gated feed-forward half.

use std::path::Path;

use serde::Deserialize;

use crate::error::EngineError;
use crate::families::ntk::{Ntk, RopeScaling};
use crate::families::post_norm_config::{
    BERT, Biases, GateOrder, Naming, PositionEncoding, PostNormConfig,
};
use crate::load::config::{activation, expect, from_json};
use crate::load::sizes::Sizes;

const PACKED: Naming = Naming {
    prefixes: &["new.", "gte."],
    qkv: &["attention.qkv_proj"],
    attention_out: ["attention.o_proj", "attn_ln"],
    up: &["mlp.up_gate_proj"],
    gate: GateOrder::Last,
    biases: Biases::NotUp,
    down: ["mlp.down_proj", "mlp_ln"],
    ..BERT
};
const APART: Naming =
    Naming { qkv: &["attention.q_proj", "attention.k_proj", "attention.v_proj"], ..PACKED };

/// The fields of `config.json` that shape the computation, with the defaults of the model's own code. `unpad_inputs`
/// and `use_memory_efficient_attention` say only how that code computes the same values.
#[derive(Deserialize)]
struct GteFields {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "types_default")]
    type_vocab_size: usize,
    #[serde(default = "layer_norm_type_default")]
    layer_norm_type: String,
    #[serde(default = "layer_norm_eps_default")]
    layer_norm_eps: f64,
    #[serde(default = "hidden_act_default")]
    hidden_act: String,
    #[serde(default = "position_embedding_type_default")]
    position_embedding_type: String,
    #[serde(default = "rope_theta_default")]
    rope_theta: f64,
    rope_scaling: Option<RopeScaling>,
    #[serde(default = "pack_qkv_default")]
    pack_qkv: bool,
    #[serde(default)]
    logn_attention_scale: bool,
}

fn types_default() -> usize {
    1
}
fn layer_norm_type_default() -> String {
    "layer_norm".to_owned()
}
fn layer_norm_eps_default() -> f64 {
    1e-12
}
fn hidden_act_default() -> String {
    "gelu".to_owned()
}
fn position_embedding_type_default() -> String {
    "rope".to_owned()
}
fn rope_theta_default() -> f64 {
    10_000.0
}
fn pack_qkv_default() -> bool {
    true
}

/// The configuration of a model whose `model_type` is `name`.
pub(super) fn parse(
    name: &'static str,
    path: &Path,
    json: &[u8],
) -> Result<PostNormConfig, EngineError> {
    let fields: GteFields = from_json(path, json)?;
    expect(path, "layer_norm_type", &fields.layer_norm_type, "layer_norm")?;
    expect(path, "logn_attention_scale", &fields.logn_attention_scale.to_string(), "false")?;
    let position_encoding = match fields.position_embedding_type.as_str() {
        "rope" => match Ntk::parse(path, fields.rope_theta, fields.rope_scaling.as_ref())? {
            Some(ntk) => PositionEncoding::Ntk(ntk),
            None => PositionEncoding::Rotary(fields.rope_theta),
        },
        "absolute" => PositionEncoding::Absolute,
        other => {
            return Err(EngineError::NotSupported {
                path: path.to_owned(),
                field: "position_embedding_type",
                value: other.to_owned(),
                supported: "rope, absolute",
            });
        }
    };
    let sizes = Sizes {
        vocabulary: fields.vocab_size,
        hidden: fields.hidden_size,
        inner: fields.intermediate_size,
        positions: fields.max_position_embeddings,
        types: fields.type_vocab_size,
    };
    Ok(PostNormConfig {
        name,
        sizes: sizes.check(path, fields.num_attention_heads)?,
        layers: fields.num_hidden_layers,
        heads: fields.num_attention_heads,
        eps: fields.layer_norm_eps,
        first_position: 0,
        position_encoding,
        activation: activation(path, "hidden_act", &fields.hidden_act)?,
        naming: if fields.pack_qkv { &PACKED } else { &APART },
    })
}
