//! GTE's own encoder (`NewModel`, of gte-*-en-v1.5, gte-multilingual and Snowflake's Arctic Embed m v2): layers of
//! `post_norm` with rotary positions and a gated feed-forward half.

use crate::error::EngineError;
use crate::families::ntk::Ntk;
use crate::families::post_norm_config::{
    BERT, Biases, GateOrder, Naming, PositionEncoding, PostNormConfig,
};
use crate::families::rope::RotaryBase;
use crate::load::config::activation;
use crate::load::fields::Fields;
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

/// Takes the fields of a model whose `model_type` is `name`, with the defaults of the model's own code.
pub(super) fn parse(
    name: &'static str,
    fields: &mut Fields,
) -> Result<PostNormConfig, EngineError> {
    fields.only("layer_norm_type", &"layer_norm".to_owned())?;
    fields.only("logn_attention_scale", &false)?;
    fields.only_empty("rope_parameters")?;
    // How that code computes the same values, and what is scaled where `logn_attention_scale` is true.
    fields.without_effect(&[
        "logn_attention_clip1",
        "pad_token_id",
        "unpad_inputs",
        "use_memory_efficient_attention",
    ]);
    let base = fields.or("rope_theta", 10_000.0)?;
    let ntk = Ntk::parse(fields, base)?;
    let encoding: String = fields.or("position_embedding_type", "rope".to_owned())?;
    let position_encoding = match (encoding.as_str(), ntk) {
        ("rope", Some(ntk)) => PositionEncoding::Ntk(ntk),
        ("rope", None) => PositionEncoding::Rotary(RotaryBase { base, scaling: None }),
        ("absolute", _) => PositionEncoding::Absolute,
        _ => {
            let supported = "rope, absolute";
            return Err(fields.not_supported("position_embedding_type", &encoding, &supported));
        }
    };
    let heads = fields.required("num_attention_heads")?;
    let sizes = Sizes {
        vocabulary: fields.required("vocab_size")?,
        hidden: fields.required("hidden_size")?,
        inner: fields.required("intermediate_size")?,
        positions: fields.required("max_position_embeddings")?,
        types: fields.or("type_vocab_size", 1)?,
    };
    Ok(PostNormConfig {
        name,
        sizes: sizes.check(fields.path(), heads)?,
        layers: fields.required("num_hidden_layers")?,
        heads,
        eps: fields.or("layer_norm_eps", 1e-12)?,
        first_position: 0,
        padding: None,
        position_encoding,
        activation: activation(fields, "hidden_act", "gelu")?,
        naming: if fields.or("pack_qkv", true)? { &PACKED } else { &APART },
    })
}
