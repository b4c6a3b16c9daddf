//! Fields of `config.json` and settings of generation.

use serde_json::{Value, json};

use super::write::Writer;
use crate::error::EngineError;
use crate::load::gguf::GgufModel;

fn config(writer: &Writer) -> Result<Value, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    GgufModel::open(&writer.write(folder.path()))?.config().map(Value::Object)
}

fn refusal(writer: &Writer) -> String {
    config(writer).unwrap_err().to_string()
}

#[test]
fn a_llama_s_fields_are_those_of_transformers() {
    let mut writer = Writer::of("llama");
    writer.float("llama.rope.freq_base", 1e5).size("llama.rope.dimension_count", 8);
    writer.size("llama.vocab_size", 7);
    let expected = json!({
        "model_type": "llama", "vocab_size": 7, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e5,
        "tie_word_embeddings": true, "hidden_act": "silu", "attention_bias": false,
        "mlp_bias": false,
    });
    assert_eq!(config(&writer).unwrap(), expected);
    writer.floats("output.weight", &[7, 32], &[0.0; 7 * 32]);
    writer.floats("blk.0.attn_q.bias", &[32], &[0.0; 32]);
    let fields = config(&writer).unwrap();
    assert_eq!([&fields["tie_word_embeddings"], &fields["attention_bias"]], [false, true]);
}

#[test]
fn models_of_vectors_are_refused_by_their_pooling() {
    let mut writer = Writer::of("llama");
    writer.size("llama.pooling_type", 0);
    assert!(config(&writer).is_ok());
    let mut writer = Writer::of("llama");
    writer.size("llama.pooling_type", 3);
    let refusal = refusal(&writer);
    assert!(refusal.contains("llama.pooling_type"), "{refusal}");
}

#[test]
fn llama_3_s_scaling_is_found_by_its_factors() {
    // The factors of Llama 3.2: head 64, base 5e5, factor 32.
    let factor = |i: usize| {
        let wave = std::f64::consts::TAU * 5e5_f64.powf(i as f64 / 32.0);
        if wave < 8192.0 / 4.0 {
            1.0
        } else if wave > 8192.0 {
            32.0
        } else {
            let smooth = (8192.0 / wave - 1.0) / 3.0;
            1.0 / ((1.0 - smooth) / 32.0 + smooth)
        }
    };
    let factors: Vec<f32> = (0..32).map(|i| factor(i) as f32).collect();
    let mut writer = Writer::of("llama");
    writer.float("llama.rope.freq_base", 5e5).size("llama.rope.dimension_count", 64);
    writer.size("llama.attention.key_length", 64).size("llama.attention.value_length", 64);
    let mut other = writer.clone();
    let scaling = config(writer.floats("rope_freqs.weight", &[32], &factors)).unwrap();
    let expected = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(scaling["rope_scaling"], expected);
    let error = refusal(other.floats("rope_freqs.weight", &[32], &[3.0; 32]));
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn other_scalings_have_transformers_names() {
    let mut yarn = Writer::of("qwen2");
    yarn.text("qwen2.rope.scaling.type", "yarn").float("qwen2.rope.scaling.factor", 4.0);
    yarn.size("qwen2.rope.scaling.original_context_length", 16);
    let expected =
        json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    assert_eq!(config(&yarn).unwrap()["rope_scaling"], expected);
    let error = refusal(yarn.text("qwen2.rope.scaling.type", "odd"));
    assert!(error.contains("qwen2.rope.scaling.type = odd"), "{error}");

    let mut phi = Writer::of("phi3");
    phi.size("phi3.rope.dimension_count", 6);
    phi.floats("rope_factors_long.weight", &[3], &[1.5, 2.1, 4.0]);
    phi.floats("rope_factors_short.weight", &[3], &[1.0, 1.1, 1.2]);
    let fields = config(&phi).unwrap();
    let expected = json!({
        "rope_type": "longrope", "long_factor": [1.5, 2.1, 4.0], "short_factor": [1.0, 1.1, 1.2],
    });
    assert_eq!(fields["rope_scaling"], expected);
    assert_eq!(fields["partial_rotary_factor"], 0.75);
    assert_eq!(fields["original_max_position_embeddings"], 64);
}

#[test]
fn what_a_gemma_s_file_lacks_is_as_in_transformers() {
    let mut writer = Writer::of("gemma3");
    writer.size("gemma3.attention.key_length", 16).size("gemma3.attention.value_length", 16);
    writer.size("gemma3.attention.sliding_window", 5);
    let fields = config(&writer).unwrap();
    for (field, value) in [
        ("model_type", json!("gemma3_text")),
        ("head_dim", json!(16)),
        ("query_pre_attn_scalar", json!(16)),
        ("rope_local_base_freq", json!(1e4)),
        ("sliding_window", json!(5)),
        ("sliding_window_pattern", json!(6)),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
}

/// A file of a family with experts.
fn with_experts(family: &str) -> Writer {
    let mut writer = Writer::of(family);
    for (key, size) in
        [("expert_count", 8), ("expert_used_count", 2), ("expert_feed_forward_length", 24)]
    {
        writer.size(&format!("{family}.{key}"), size);
    }
    writer
}

#[test]
fn experts_are_as_in_transformers() {
    let mut qwen = with_experts("qwen3moe");
    qwen.floats("blk.1.ffn_gate.weight", &[64, 32], &[0.0; 64 * 32]);
    let fields = config(&qwen).unwrap();
    for (field, value) in [
        ("model_type", json!("qwen3_moe")),
        ("intermediate_size", json!(64)),
        ("moe_intermediate_size", json!(24)),
        ("num_local_experts", json!(8)),
        ("num_experts_per_tok", json!(2)),
        ("norm_topk_prob", json!(true)),
        ("mlp_only_layers", json!([1])),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
    let mut oss = with_experts("gpt-oss");
    oss.text("gpt-oss.rope.scaling.type", "yarn").float("gpt-oss.rope.scaling.factor", 32.0);
    oss.size("gpt-oss.attention.sliding_window", 128);
    oss.floats("blk.0.attn_q.bias", &[32], &[0.0; 32]);
    let fields = config(&oss).unwrap();
    for (field, value) in [
        ("model_type", json!("gpt_oss")),
        ("intermediate_size", json!(24)),
        ("attention_bias", json!(true)),
        ("sliding_window", json!(128)),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
    assert_eq!(fields["rope_scaling"]["truncate"], false);
    for key in ["expert_count", "expert_used_count", "expert_feed_forward_length"] {
        let mut without = with_experts("qwen3moe");
        let error = refusal(without.text(&format!("qwen3moe.{key}"), "none"));
        assert!(error.contains(key), "{error}");
    }
    for (family, key, value) in [
        ("qwen3moe", "expert_gating_func", 2),
        ("gpt-oss", "expert_gating_func", 1),
        ("qwen3moe", "expert_shared_count", 1),
        ("qwen3moe", "expert_group_count", 4),
    ] {
        let error = refusal(with_experts(family).size(&format!("{family}.{key}"), value));
        assert!(error.contains(&format!("{family}.{key} = {value}")), "{error}");
    }
}

#[test]
fn settings_that_cannot_be_honoured_are_refused_by_their_key() {
    let error = refusal(&Writer::of("mamba"));
    assert!(error.contains("mamba") && error.contains("smollm3"), "{error}");
    let error = refusal(Writer::of("llama").size("llama.expert_count", 8));
    assert!(error.contains("llama.expert_count"), "{error}");
    let error = refusal(Writer::of("llama").size("llama.block_count", 100_000));
    assert!(error.contains("llama.block_count = 100000"), "{error}");
    let error = refusal(Writer::of("llama").text("llama.block_count", "2"));
    assert!(error.contains("is a text, expected an integer"), "{error}");
    let error = refusal(Writer::of("llama").size("llama.attention.head_count", 0));
    assert!(error.contains("llama.attention.head_count = 0"), "{error}");
    let error = refusal(Writer::of("llama").float("llama.rope.freq_base", f32::NAN));
    assert!(error.contains("finite"), "{error}");
    let error = refusal(Writer::of("llama").size("llama.attention.value_length", 7));
    assert!(error.contains("the width of keys"), "{error}");
}

#[test]
fn ends_of_answers_are_the_named_ones_and_those_that_models_end_with() {
    let mut writer = Writer::of("llama");
    writer.texts("tokenizer.ggml.tokens", &["a", "<|eot_id|>", "<|im_end|>", "</s>", "<end>"]);
    writer.integers("tokenizer.ggml.token_type", &[1, 3, 1, 3, 3]);
    writer.size("tokenizer.ggml.eos_token_id", 3).size("tokenizer.ggml.eot_token_id", 1);
    writer.text("tokenizer.chat_template", "{{ messages }}");
    let folder = tempfile::tempdir().unwrap();
    let facts = |writer: &Writer| {
        GgufModel::open(&writer.write(folder.path())).unwrap().generation().unwrap()
    };
    let these = facts(&writer);
    assert_eq!(these.eos, [3, 1], "<|im_end|> is ordinary text here");
    assert_eq!((these.bos, these.adds_bos), (None, false));
    assert_eq!(these.chat_template.as_deref(), Some("{{ messages }}"));
    writer.text("tokenizer.ggml.model", "llama").size("tokenizer.ggml.bos_token_id", 0);
    assert_eq!((facts(&writer).bos, facts(&writer).adds_bos), (Some(0), true));
    writer.bool("tokenizer.ggml.add_bos_token", false);
    assert!(!facts(&writer).adds_bos);
    writer.size("tokenizer.ggml.bos_token_id", 5);
    let error = GgufModel::open(&writer.write(folder.path())).unwrap().generation();
    assert!(error.unwrap_err().to_string().contains("bos_token_id = 5, expected 0 to 4"));
}
