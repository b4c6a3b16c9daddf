//! GTE's own encoder (`NewModel`, of gte-*-en-v1.5, gte-multilingual and Snowflake's Arctic Embed m v2): layers of
//! `post_norm` with rotary positions and a gated feed-forward half.

use serde_json::Value;

use crate::error::EngineError;
use crate::families::ntk::Ntk;
use crate::families::post_norm_config::{
    BERT, Biases, GateOrder, Naming, PositionEncoding, PostNormConfig,
};
use crate::families::rope::{RotaryBase, rope_theta};
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
    // How that code computes the same values, and what is scaled where `logn_attention_scale` is true.
    fields.without_effect(&[
        "logn_attention_clip1",
        "pad_token_id",
        "unpad_inputs",
        "use_memory_efficient_attention",
    ]);
    // Of transformers, which calls it "gte", and of the code on the hub.
    let default = if name == "gte" { 160_000.0 } else { 10_000.0 };
    let theta = fields.or("rope_theta", default)?;
    let parameters = fields.or("rope_parameters", Value::Null)?;
    let base = rope_theta(fields, parameters, theta)?;
    let ntk = if name == "new" {
        Ntk::parse(fields, base)?
    } else {
        // That of transformers knows other scalings, and none of this kind.
        fields.only_empty("rope_scaling")?;
        None
    };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base(name: &'static str, rope: &str) -> Result<RotaryBase, EngineError> {
        let json = format!(
            r#"{{"vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
                 "num_attention_heads": 2, "max_position_embeddings": 30 {rope}}}"#
        );
        let path = std::path::Path::new("config.json");
        let config = parse(name, &mut Fields::parse(path, json.as_bytes()).unwrap())?;
        match config.position_encoding {
            PositionEncoding::Rotary(base) => Ok(base),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_base_is_that_of_the_parameters_then_of_its_own_field_then_of_the_code() {
        let parameters = r#", "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}"#;
        let without_base = r#", "rope_theta": 700.0, "rope_parameters": {"rope_type": "default"}"#;
        for (name, rope, expected) in [
            ("gte", "", 160_000.0),
            ("new", "", 10_000.0),
            ("gte", r#", "rope_parameters": null"#, 160_000.0),
            ("gte", parameters, 500.0),
            ("new", parameters, 500.0),
            ("gte", without_base, 700.0),
        ] {
            let base = base(name, rope).unwrap();
            assert_eq!(base, RotaryBase { base: expected, scaling: None }, "{name} {rope}");
        }
    }

    #[test]
    fn scalings_are_refused_by_name_where_the_models_code_has_none() {
        let scaled = |name, kind: &str| {
            base(name, &format!(r#", "rope_scaling": {{"type": "{kind}", "factor": 2.0}}"#))
        };
        for (name, kind) in
            [("gte", "ntk"), ("gte", "linear"), ("new", "linear"), ("new", "dynamic")]
        {
            let error = scaled(name, kind).unwrap_err();
            let EngineError::NotSupported { field: named, .. } = error else { panic!("{error}") };
            assert_eq!(named, "rope_scaling", "{name} {kind}");
        }
    }

    #[test]
    fn other_rotations_are_refused_by_name() {
        for parameters in [r#"{"rope_type": "linear", "factor": 2.0}"#, r#"{"rope_type": "yarn"}"#]
        {
            let error = base("gte", &format!(r#", "rope_parameters": {parameters}"#)).unwrap_err();
            let field = "rope_parameters";
            let EngineError::NotSupported { field: named, .. } = error else { panic!("{error}") };
            assert_eq!(named, field);
        }
    }
}
