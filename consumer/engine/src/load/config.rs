//! The fields of `config.json` that several families share.

use forebay_kernels::Activation;

use crate::error::EngineError;
use crate::load::fields::Fields;

/// Takes an activation, by its name in transformers.
pub(crate) fn activation(
    fields: &mut Fields,
    field: &'static str,
    default: &str,
) -> Result<Activation, EngineError> {
    let name = fields.get(field)?.unwrap_or_else(|| default.to_owned());
    match name.as_str() {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        _ => {
            let supported = "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh";
            Err(fields.not_supported(field, &name, &supported))
        }
    }
}

/// Fields that transformers writes for itself: how a model is trained, saved, and generates text.
const OF_TRANSFORMERS: &[&str] = &[
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "attn_implementation",
    "attention_probs_dropout_prob",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "language",
    "length_penalty",
    "max_length",
    "min_length",
    "name",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    // BERT's first multilingual models name the sizes of a pooler that they never had.
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    // The activation that a CrossEncoder applies to scores. Scores are raw here: docs/models.md.
    "sbert_ce_default_activation_function",
    "sentence_transformers",
];

/// Takes the fields that every configuration of transformers may have, and refuses those that would make another model
/// of any family.
pub(crate) fn common(fields: &mut Fields) -> Result<(), EngineError> {
    fields.without_effect(OF_TRANSFORMERS);
    for field in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        fields.only(field, &false)?;
    }
    fields.only_empty("pruned_heads")?;
    fields.only_empty("quantization_config")
}
