//! The families of models that a GGUF may hold, and transformers' names for their tensors.

use crate::error::EngineError;
use crate::load::gguf::metadata::Metadata;

/// The families that are read, by the names that files give them.
const FAMILIES: &str = "llama (also SmolLM2 and Mistral), smollm3, qwen2, qwen3, qwen3moe, gemma3, \
                        phi3 (also Phi-4), gpt-oss";

/// A family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    SmolLm3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
    Phi3,
    GptOss,
}

impl Family {
    /// The family that the settings name.
    pub(crate) fn of(metadata: &Metadata) -> Result<Self, EngineError> {
        let name = metadata.required_text("general.architecture")?;
        Ok(match name {
            "llama" => Self::Llama,
            "smollm3" => Self::SmolLm3,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            "gemma3" => Self::Gemma3,
            "phi3" => Self::Phi3,
            "gpt-oss" => Self::GptOss,
            _ => {
                return Err(metadata.problem(format!(
                    "general.architecture = {name} is not supported; supported: {FAMILIES}"
                )));
            }
        })
    }

    /// The name that keys of settings begin with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::SmolLm3 => "smollm3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::GptOss => "gpt-oss",
        }
    }

    /// transformers' name of the family.
    pub(crate) fn model_type(self) -> &'static str {
        match self {
            Self::Gemma3 => "gemma3_text",
            Self::Qwen3Moe => "qwen3_moe",
            Self::GptOss => "gpt_oss",
            other => other.name(),
        }
    }

    /// Whether the rows of queries and keys are ordered for a rotation of neighbours: the two halves of a head, which
    /// transformers rotates against each other, lie interleaved in the file.
    pub(crate) fn interleaves_heads(self) -> bool {
        matches!(self, Self::Llama | Self::SmolLm3)
    }

    /// Whether a norm's weight in the file has one added, which transformers' layers add themselves.
    pub(crate) fn adds_one_to_norms(self) -> bool {
        matches!(self, Self::Gemma3)
    }

    /// Whether its layers may have experts.
    pub(crate) fn has_experts(self) -> bool {
        matches!(self, Self::Qwen3Moe | Self::GptOss)
    }

    /// transformers' name of a tensor, and how the tensor differs there; one that has no counterpart keeps its name. A
    /// gate of all experts, which transformers joins with what it multiplies, has the name that both would have apart.
    pub(crate) fn tensor(self, name: &str) -> (String, Change) {
        let renamed = match name {
            "token_embd.weight" => Some(("model.embed_tokens.weight".to_owned(), Change::None)),
            "output_norm.weight" => Some(("model.norm.weight".to_owned(), self.norm())),
            "output.weight" => Some(("lm_head.weight".to_owned(), Change::None)),
            _ => self.tensor_of_layer(name),
        };
        renamed.unwrap_or_else(|| (name.to_owned(), Change::None))
    }

    fn tensor_of_layer(self, name: &str) -> Option<(String, Change)> {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let layer: u16 = layer.parse().ok().filter(|number: &u16| number.to_string() == layer)?;
        let (part, end) = rest.split_once('.')?;
        if !matches!(end, "weight" | "bias") {
            return None;
        }
        if (part, self) == ("attn_sinks", Self::GptOss) {
            return Some((format!("model.layers.{layer}.self_attn.sinks"), Change::None));
        }
        let interleaved = |change| if self.interleaves_heads() { change } else { Change::None };
        let (part, change) = match (part, self) {
            ("attn_norm", _) => ("input_layernorm", self.norm()),
            ("attn_q", _) => ("self_attn.q_proj", interleaved(Change::Queries)),
            ("attn_k", _) => ("self_attn.k_proj", interleaved(Change::Keys)),
            ("attn_v", _) => ("self_attn.v_proj", Change::None),
            ("attn_qkv", _) => ("self_attn.qkv_proj", Change::None),
            ("attn_output", _) => ("self_attn.o_proj", Change::None),
            ("attn_q_norm", _) => ("self_attn.q_norm", self.norm()),
            ("attn_k_norm", _) => ("self_attn.k_norm", self.norm()),
            ("ffn_gate", _) => ("mlp.gate_proj", Change::None),
            ("ffn_up", Self::Phi3) => ("mlp.gate_up_proj", Change::None),
            ("ffn_up", _) => ("mlp.up_proj", Change::None),
            ("ffn_down", _) => ("mlp.down_proj", Change::None),
            ("ffn_norm", Self::Gemma3) => ("pre_feedforward_layernorm", self.norm()),
            ("post_ffw_norm", Self::Gemma3) => ("post_feedforward_layernorm", self.norm()),
            ("ffn_gate_inp", Self::Qwen3Moe) => ("mlp.gate", Change::None),
            ("ffn_gate_inp", Self::GptOss) => ("mlp.router", Change::None),
            ("ffn_gate_exps", _) => ("mlp.experts.gate_proj", Change::None),
            ("ffn_up_exps", _) => ("mlp.experts.up_proj", Change::None),
            ("ffn_down_exps", _) => ("mlp.experts.down_proj", Change::None),
            ("post_attention_norm", Self::Gemma3 | Self::GptOss) | ("ffn_norm", _) => {
                ("post_attention_layernorm", self.norm())
            }
            _ => return None,
        };
        Some((format!("model.layers.{layer}.{part}.{end}"), change))
    }

    fn norm(self) -> Change {
        if self.adds_one_to_norms() { Change::OneLess } else { Change::None }
    }
}

/// How transformers' tensor differs from the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It doesn't.
    None,
    /// Its rows are queries, whose heads are interleaved in the file.
    Queries,
    /// Its rows are such keys.
    Keys,
    /// Each value is less by one.
    OneLess,
}

/// The rows of heads, from interleaved halves to one half after the other.
pub(crate) fn halves_apart(bytes: &[u8], row_bytes: usize, heads: usize) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(bytes.len() / heads) {
        for half in 0..2 {
            for row in head.chunks_exact(row_bytes).skip(half).step_by(2) {
                ordered.extend_from_slice(row);
            }
        }
    }
    ordered
}
