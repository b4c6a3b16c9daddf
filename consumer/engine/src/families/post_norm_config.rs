//! The families that normalise after each half layer: the fields that each reads from `config.json`, a function that
//! makes a [`PostNormConfig`] of them, and the names of its tensors. They share the layers of `post_norm`.

use std::path::Path;

use forebay_kernels::Activation;
use serde::Deserialize;

use crate::error::EngineError;
use crate::load::config::{activation, expect, from_json};
use crate::load::sizes::Sizes;

/// A model of one of these families.
#[derive(Debug)]
pub(crate) struct PostNormConfig {
    pub(crate) name: &'static str,
    pub(crate) sizes: Sizes,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) eps: f64,
    /// The position of a sequence's first token.
    pub(super) first_position: usize,
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
    /// `RoPE`: queries and keys are rotated (Nomic); the base of the frequencies.
    Rotary(f64),
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
    pub(super) gated: bool,
    /// Whether linear layers have biases.
    pub(super) biases: Biases,
    pub(super) down: [&'static str; 2],
}

/// Which linear layers of a family have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Biases {
    All,
    /// All but the gated one.
    NotUp,
    None,
}

const BERT: Naming = Naming {
    prefixes: &["bert.", "roberta."],
    embedding_norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_out: ["attention.output.dense", "attention.output.LayerNorm"],
    up: &["intermediate.dense"],
    gated: false,
    biases: Biases::All,
    down: ["output.dense", "output.LayerNorm"],
};
const JINA: Naming = Naming {
    up: &["mlp.gated_layers"],
    gated: true,
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
    gated: false,
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
    gated: true,
    biases: Biases::None,
    down: ["mlp.fc2", "norm2"],
};

/// The fields of BERT's, `RoBERTa`'s and `MPNet`'s `config.json`, with the defaults of transformers.
#[derive(Deserialize)]
struct BertFields {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    #[serde(default = "layer_norm_eps_default")]
    layer_norm_eps: f64,
    #[serde(default = "hidden_act_default")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    feed_forward_type: Option<String>,
    #[serde(default = "pad_token_id_default")]
    pad_token_id: usize,
    #[serde(default = "buckets_default")]
    relative_attention_num_buckets: usize,
}

fn layer_norm_eps_default() -> f64 {
    1e-12
}
fn hidden_act_default() -> String {
    "gelu".to_owned()
}
fn pad_token_id_default() -> usize {
    1 // in the families whose positions begin behind the padding's id
}
fn buckets_default() -> usize {
    32
}

#[derive(Deserialize)]
struct DistilBertFields {
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "hidden_act_default")]
    activation: String,
}

#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools)] // its file has them
struct NomicFields {
    vocab_size: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    n_positions: usize,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "layer_norm_eps_default")]
    layer_norm_epsilon: f64,
    #[serde(default = "rotary_base_default")]
    rotary_emb_base: f64,
    #[serde(default)]
    rotary_emb_fraction: f64,
    #[serde(default)]
    rotary_emb_interleaved: bool,
    #[serde(default)]
    prenorm: bool,
    #[serde(default)]
    qkv_proj_bias: bool,
    #[serde(default)]
    mlp_fc1_bias: bool,
    #[serde(default)]
    mlp_fc2_bias: bool,
    #[serde(default)]
    activation_function: String,
}

fn rotary_base_default() -> f64 {
    10_000.0
}

impl PostNormConfig {
    /// Parses the configuration; `None` where `model_type` is none of these families.
    pub(super) fn parse(
        model_type: &str,
        path: &Path,
        json: &[u8],
    ) -> Result<Option<Self>, EngineError> {
        let config = match model_type {
            "bert" => bert(path, &from_json(path, json)?)?,
            "roberta" => roberta("roberta", path, &from_json(path, json)?)?,
            "xlm-roberta" => roberta("xlm-roberta", path, &from_json(path, json)?)?,
            "camembert" => roberta("camembert", path, &from_json(path, json)?)?,
            "mpnet" => mpnet(path, &from_json(path, json)?)?,
            "distilbert" => distilbert(path, &from_json(path, json)?)?,
            "nomic_bert" => nomic(path, &from_json(path, json)?)?,
            _ => return Ok(None),
        };
        config.sizes.check(path, config.heads)?;
        Ok(Some(config))
    }
}

/// The configuration that BERT and its kin have in common; positions from 0.
fn bert_like(
    name: &'static str,
    path: &Path,
    fields: &BertFields,
    types: usize,
) -> Result<PostNormConfig, EngineError> {
    let sizes = Sizes {
        vocabulary: fields.vocab_size,
        hidden: fields.hidden_size,
        inner: fields.intermediate_size,
        positions: fields.max_position_embeddings,
        types: fields.type_vocab_size.unwrap_or(types),
    };
    Ok(PostNormConfig {
        name,
        sizes,
        layers: fields.num_hidden_layers,
        heads: fields.num_attention_heads,
        eps: fields.layer_norm_eps,
        first_position: 0,
        position_encoding: PositionEncoding::Absolute,
        activation: activation(path, "hidden_act", &fields.hidden_act)?,
        naming: &BERT,
    })
}

fn bert(path: &Path, fields: &BertFields) -> Result<PostNormConfig, EngineError> {
    let config = bert_like("bert", path, fields, 2)?;
    match fields.position_embedding_type.as_deref().unwrap_or("absolute") {
        "absolute" => Ok(config),
        "alibi" => {
            let gate = fields.feed_forward_type.as_deref().unwrap_or("original");
            let activation = match gate {
                "geglu" => Activation::Gelu,
                "reglu" => Activation::Relu,
                _ => {
                    return Err(EngineError::NotSupported {
                        path: path.to_owned(),
                        field: "feed_forward_type",
                        value: gate.to_owned(),
                        supported: "geglu, reglu",
                    });
                }
            };
            Ok(PostNormConfig {
                position_encoding: PositionEncoding::Alibi,
                activation,
                naming: &JINA,
                ..config
            })
        }
        other => Err(EngineError::NotSupported {
            path: path.to_owned(),
            field: "position_embedding_type",
            value: other.to_owned(),
            supported: "absolute, alibi",
        }),
    }
}

/// Positions begin behind the padding's id.
fn behind_padding(
    mut config: PostNormConfig,
    path: &Path,
    padding: usize,
) -> Result<PostNormConfig, EngineError> {
    config.first_position = padding.saturating_add(1);
    let Some(positions) = config.sizes.positions.checked_sub(config.first_position) else {
        let problem = format!("pad_token_id {padding} leaves no positions");
        return Err(EngineError::Config { path: path.to_owned(), problem });
    };
    config.sizes.positions = positions;
    Ok(config)
}

fn roberta(
    name: &'static str,
    path: &Path,
    fields: &BertFields,
) -> Result<PostNormConfig, EngineError> {
    let encoding = fields.position_embedding_type.as_deref().unwrap_or("absolute");
    expect(path, "position_embedding_type", encoding, "absolute")?;
    behind_padding(bert_like(name, path, fields, 1)?, path, fields.pad_token_id)
}

fn mpnet(path: &Path, fields: &BertFields) -> Result<PostNormConfig, EngineError> {
    let config = behind_padding(bert_like("mpnet", path, fields, 0)?, path, fields.pad_token_id)?;
    let buckets = fields.relative_attention_num_buckets;
    if buckets < 4 {
        let problem = format!("{buckets} relative_attention_num_buckets are too few");
        return Err(EngineError::Config { path: path.to_owned(), problem });
    }
    Ok(PostNormConfig {
        position_encoding: PositionEncoding::Buckets(buckets),
        naming: &MPNET,
        ..config
    })
}

fn distilbert(path: &Path, fields: &DistilBertFields) -> Result<PostNormConfig, EngineError> {
    let sizes = Sizes {
        vocabulary: fields.vocab_size,
        hidden: fields.dim,
        inner: fields.hidden_dim,
        positions: fields.max_position_embeddings,
        types: 0,
    };
    Ok(PostNormConfig {
        name: "distilbert",
        sizes,
        layers: fields.n_layers,
        heads: fields.n_heads,
        eps: 1e-12, // not configurable there
        first_position: 0,
        position_encoding: PositionEncoding::Absolute,
        activation: activation(path, "activation", &fields.activation)?,
        naming: &DISTILBERT,
    })
}

fn nomic(path: &Path, fields: &NomicFields) -> Result<PostNormConfig, EngineError> {
    for (field, value, supported) in [
        ("activation_function", fields.activation_function.clone(), "swiglu"),
        ("rotary_emb_fraction", fields.rotary_emb_fraction.to_string(), "1"),
        ("rotary_emb_interleaved", fields.rotary_emb_interleaved.to_string(), "false"),
        ("prenorm", fields.prenorm.to_string(), "false"),
        ("qkv_proj_bias", fields.qkv_proj_bias.to_string(), "false"),
        ("mlp_fc1_bias", fields.mlp_fc1_bias.to_string(), "false"),
        ("mlp_fc2_bias", fields.mlp_fc2_bias.to_string(), "false"),
    ] {
        expect(path, field, &value, supported)?;
    }
    let sizes = Sizes {
        vocabulary: fields.vocab_size,
        hidden: fields.n_embd,
        inner: fields.n_inner.unwrap_or(fields.n_embd.saturating_mul(4)),
        positions: fields.n_positions,
        types: fields.type_vocab_size,
    };
    Ok(PostNormConfig {
        name: "nomic_bert",
        sizes,
        layers: fields.n_layer,
        heads: fields.n_head,
        eps: fields.layer_norm_epsilon,
        first_position: 0,
        position_encoding: PositionEncoding::Rotary(fields.rotary_emb_base),
        activation: Activation::Silu,
        naming: &NOMIC,
    })
}
