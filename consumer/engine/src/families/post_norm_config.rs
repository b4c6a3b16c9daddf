//! The families that normalise after each half layer: the fields that each reads from `config.json`, a function that
//! makes a [`PostNormConfig`] of them, and the names of its tensors. They share the layers of `post_norm`.

use forebay_kernels::Activation;
use serde_json::Value;

use crate::error::EngineError;
use crate::families::ntk::Ntk;
use crate::families::rope::{RotaryBase, Scaling, rope_theta};
use crate::load::config::activation;
use crate::load::fields::Fields;
use crate::load::sizes::Sizes;

/// A model of one of these families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostNormConfig {
    pub(crate) name: &'static str,
    pub(crate) sizes: Sizes,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) eps: f64,
    /// The position of a sequence's first token.
    pub(super) first_position: usize,
    /// The token that stands at the position before the first, wherever it is in a text, and is not counted.
    pub(super) padding: Option<u32>,
    pub(super) position_encoding: PositionEncoding,
    pub(super) activation: Activation,
    pub(crate) naming: &'static Naming,
}

/// How a model encodes the position of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PositionEncoding {
    /// Absolute: a learned embedding for each position.
    Absolute,
    /// Absolute, and a learned bias for each bucket of distances (`MPNet`): the number of buckets.
    Buckets(usize),
    /// `RoPE`: queries and keys are rotated (Nomic).
    Rotary(RotaryBase),
    /// `RoPE` with frequencies that are scaled for texts of any length (GTE).
    Ntk(Ntk),
    /// `ALiBi`: a bias that grows with the distance (Jina).
    Alibi,
}

/// The names of a family's tensors. Those of a layer are below `layer` and its number.
#[derive(Debug)]
pub(crate) struct Naming {
    pub(crate) prefixes: &'static [&'static str],
    pub(super) embedding_norm: &'static str,
    pub(super) layer: &'static str,
    /// One tensor that holds all three projections, or three.
    pub(super) qkv: &'static [&'static str],
    pub(super) attention_out: [&'static str; 2],
    pub(super) up: &'static [&'static str],
    /// Whether one half of `up`'s outputs gates the other.
    pub(super) gate: GateOrder,
    /// Whether linear layers have biases.
    pub(super) biases: Biases,
    pub(super) down: [&'static str; 2],
}

/// Whether a family's `up` layer has a gate, and which half of its outputs that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GateOrder {
    /// There is no gate.
    None,
    /// The activated half comes first.
    First,
    /// The activated half comes last: the weights are reordered as they are loaded.
    Last,
}

/// Which linear layers of a family have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Biases {
    All,
    /// All but the gated one.
    NotUp,
    None,
}

pub(super) const BERT: Naming = Naming {
    prefixes: &["bert.", "roberta."],
    embedding_norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_out: ["attention.output.dense", "attention.output.LayerNorm"],
    up: &["intermediate.dense"],
    gate: GateOrder::None,
    biases: Biases::All,
    down: ["output.dense", "output.LayerNorm"],
};
const JINA: Naming = Naming {
    up: &["mlp.gated_layers"],
    gate: GateOrder::First,
    biases: Biases::NotUp,
    down: ["mlp.wo", "mlp.layernorm"],
    ..BERT
};
const DISTILBERT: Naming = Naming {
    prefixes: &["distilbert."],
    embedding_norm: "embeddings.LayerNorm",
    layer: "transformer.layer",
    qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_out: ["attention.out_lin", "sa_layer_norm"],
    up: &["ffn.lin1"],
    gate: GateOrder::None,
    biases: Biases::All,
    down: ["ffn.lin2", "output_layer_norm"],
};
const MPNET: Naming = Naming {
    prefixes: &["mpnet."],
    qkv: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_out: ["attention.attn.o", "attention.LayerNorm"],
    ..BERT
};
const NOMIC: Naming = Naming {
    prefixes: &["bert."],
    embedding_norm: "emb_ln",
    layer: "encoder.layers",
    qkv: &["attn.Wqkv"],
    attention_out: ["attn.out_proj", "norm1"],
    // The activated half comes first.
    up: &["mlp.fc12", "mlp.fc11"],
    gate: GateOrder::First,
    biases: Biases::None,
    down: ["mlp.fc2", "norm2"],
};

impl PostNormConfig {
    /// Takes the fields; `None` where `model_type` is none of these families.
    pub(super) fn parse(
        model_type: &str,
        fields: &mut Fields,
    ) -> Result<Option<Self>, EngineError> {
        let config = match model_type {
            "bert" => bert(fields)?,
            "roberta" => roberta("roberta", fields)?,
            "xlm-roberta" => roberta("xlm-roberta", fields)?,
            "camembert" => roberta("camembert", fields)?,
            "mpnet" => mpnet(fields)?,
            "distilbert" => distilbert(fields)?,
            "nomic_bert" if fields.has("n_embd") => nomic_of_hub(fields)?,
            "nomic_bert" => nomic(fields)?,
            _ => return Ok(None),
        };
        config.sizes.check(fields.path(), config.heads)?;
        Ok(Some(config))
    }
}

/// The fields that BERT and its kin have in common, with the defaults of transformers; positions from 0. A model
/// that doesn't say them has so many `types` and the activation `act`.
fn bert_like(
    name: &'static str,
    fields: &mut Fields,
    types: usize,
    act: &str,
) -> Result<PostNormConfig, EngineError> {
    let sizes = Sizes {
        vocabulary: fields.required("vocab_size")?,
        hidden: fields.required("hidden_size")?,
        inner: fields.required("intermediate_size")?,
        positions: fields.required("max_position_embeddings")?,
        types: fields.or("type_vocab_size", types)?,
    };
    Ok(PostNormConfig {
        name,
        sizes,
        layers: fields.required("num_hidden_layers")?,
        heads: fields.required("num_attention_heads")?,
        eps: fields.or("layer_norm_eps", 1e-12)?,
        first_position: 0,
        padding: None,
        position_encoding: PositionEncoding::Absolute,
        activation: activation(fields, "hidden_act", act)?,
        naming: &BERT,
    })
}

fn bert(fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    let config = bert_like("bert", fields, 2, "gelu")?;
    fields.without_effect(&["pad_token_id"]);
    let encoding: String = fields.or("position_embedding_type", "absolute".to_owned())?;
    match encoding.as_str() {
        "absolute" => Ok(config),
        "alibi" => jina(config, fields),
        _ => Err(fields.not_supported("position_embedding_type", &encoding, &"absolute, alibi")),
    }
}

/// Jina's BERT, version 2.
fn jina(config: PostNormConfig, fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    let gate: String = fields.or("feed_forward_type", "original".to_owned())?;
    let activation = match gate.as_str() {
        "geglu" => Activation::Gelu,
        "reglu" => Activation::Relu,
        _ => return Err(fields.not_supported("feed_forward_type", &gate, &"geglu, reglu")),
    };
    // `emb_pooler` is what its own `encode` pools by; the folder's modules say it here.
    fields.without_effect(&["attn_implementation", "emb_pooler", "model_max_length"]);
    Ok(PostNormConfig {
        position_encoding: PositionEncoding::Alibi,
        activation,
        naming: &JINA,
        ..config
    })
}

/// Positions begin behind the padding's id.
fn behind_padding(
    mut config: PostNormConfig,
    fields: &Fields,
    padding: u32,
) -> Result<PostNormConfig, EngineError> {
    config.first_position = padding as usize + 1;
    config.padding = Some(padding);
    let Some(positions) = config.sizes.positions.checked_sub(config.first_position) else {
        return Err(fields.problem(format!("pad_token_id {padding} leaves no positions")));
    };
    config.sizes.positions = positions;
    Ok(config)
}

fn roberta(name: &'static str, fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    fields.only("position_embedding_type", &"absolute".to_owned())?;
    let config = bert_like(name, fields, 2, "gelu")?;
    if fields.is_null("pad_token_id") {
        return Err(fields.not_supported(
            "pad_token_id",
            &"null",
            &"a token: positions begin behind it",
        ));
    }
    let padding = fields.or("pad_token_id", 1)?;
    behind_padding(config, fields, padding)
}

fn mpnet(fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    /// `MPNet` does not ask its configuration for the padding, nor for the number of buckets.
    const PADDING: u32 = 1;
    const BUCKETS: usize = 32;
    fields.without_effect(&["pad_token_id", "type_vocab_size"]);
    fields.only("relative_attention_num_buckets", &BUCKETS)?;
    let config = bert_like("mpnet", fields, 0, "gelu")?;
    let config = behind_padding(config, fields, PADDING)?;
    Ok(PostNormConfig {
        position_encoding: PositionEncoding::Buckets(BUCKETS),
        naming: &MPNET,
        ..config
    })
}

fn distilbert(fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    // How the table of positions was made, which the weights have as its result; and training.
    fields.without_effect(&[
        "attention_dropout",
        "dropout",
        "pad_token_id",
        "qa_dropout",
        "seq_classif_dropout",
        "sinusoidal_pos_embds",
        "tie_weights_",
    ]);
    let sizes = Sizes {
        vocabulary: fields.required("vocab_size")?,
        hidden: fields.required("dim")?,
        inner: fields.required("hidden_dim")?,
        positions: fields.required("max_position_embeddings")?,
        types: 0,
    };
    Ok(PostNormConfig {
        name: "distilbert",
        sizes,
        layers: fields.required("n_layers")?,
        heads: fields.required("n_heads")?,
        eps: 1e-12, // not configurable there
        first_position: 0,
        padding: None,
        position_encoding: PositionEncoding::Absolute,
        activation: activation(fields, "activation", "gelu")?,
        naming: &DISTILBERT,
    })
}

/// Nomic's BERT as transformers 5 writes it.
fn nomic(fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    let config = bert_like("nomic_bert", fields, 2, "silu")?;
    fields.without_effect(&["pad_token_id"]);
    fields.only("head_dim", &(config.sizes.hidden / config.heads.max(1)))?;
    fields.only_empty("rope_scaling")?;
    let theta = fields.or("rope_theta", 1000.0)?;
    let parameters = fields.or("rope_parameters", Value::Null)?;
    let base = rope_theta(fields, parameters, theta)?;
    let base = RotaryBase { base, scaling: None };
    Ok(PostNormConfig {
        position_encoding: PositionEncoding::Rotary(base),
        naming: &NOMIC,
        ..config
    })
}

/// Nomic's BERT as its own code on the hub reads it, in the words of GPT-2.
fn nomic_of_hub(fields: &mut Fields) -> Result<PostNormConfig, EngineError> {
    fields.only("activation_function", &"swiglu".to_owned())?;
    if fields.or("rotary_emb_fraction", 0.0_f64)?.total_cmp(&1.0).is_ne() {
        return Err(fields.not_supported("rotary_emb_fraction", &"other than 1", &"1"));
    }
    for field in [
        "causal",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "parallel_block",
        "prenorm",
        "qkv_proj_bias",
        "rotary_emb_interleaved",
        "scale_attn_by_inverse_layer_idx",
        "use_rms_norm",
    ] {
        fields.only(field, &false)?;
    }
    fields.only("scale_attn_weights", &true)?;
    fields.only("moe_every_n_layers", &0)?;
    fields.only_empty("rotary_emb_scale_base")?;
    fields.without_effect(NOMIC_WITHOUT_EFFECT);
    let hidden: usize = fields.required("n_embd")?;
    let positions = fields.required("n_positions")?;
    let factor: Option<f64> = fields.get("rotary_scaling_factor")?;
    let trained = fields.or("max_trained_positions", positions)?;
    let scaling = factor.map(|factor| Scaling { factor, trained });
    let base = RotaryBase { base: fields.or("rotary_emb_base", 10_000.0)?, scaling };
    let sizes = Sizes {
        vocabulary: fields.required("vocab_size")?,
        hidden,
        inner: fields.or("n_inner", hidden.saturating_mul(4))?,
        positions,
        types: fields.or("type_vocab_size", 0)?,
    };
    Ok(PostNormConfig {
        name: "nomic_bert",
        sizes,
        layers: fields.required("n_layer")?,
        heads: fields.required("n_head")?,
        eps: fields.or("layer_norm_epsilon", 1e-12)?,
        first_position: 0,
        padding: None,
        position_encoding: PositionEncoding::Rotary(base),
        activation: Activation::Silu,
        naming: &NOMIC,
    })
}

/// Training, kernels that compute the same, sizes of other heads, and experts where there are none.
const NOMIC_WITHOUT_EFFECT: &[&str] = &[
    "attn_pdrop",
    "dense_seq_output",
    "embd_pdrop",
    "expert_choice_router",
    "ffn_div",
    "fused_bias_fc",
    "fused_dropout_add_ln",
    "last_layer_subset",
    "moe_impl",
    "moe_normalize_expert_weights",
    "moe_resid_pdrop",
    "moe_top_k",
    "num_experts",
    "num_shared_experts",
    "pad_token_id",
    "pad_vocab_size_multiple",
    "parallel_block_tied_norm",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "router_aux_loss_coef",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "use_flash_attn",
    "use_xentropy",
];
