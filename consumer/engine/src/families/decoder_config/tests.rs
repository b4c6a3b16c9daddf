//! The meaning of configurations, in the words of several versions.
#![allow(clippy::unwrap_used, clippy::float_cmp)]

mod latent;

use forebay_kernels::Scoring;
use serde_json::json;

use super::*;

fn parse(model_type: &str, more: &Value) -> Result<DecoderConfig, EngineError> {
    let mut config = json!({
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let json = config.to_string();
    DecoderConfig::parse(model_type, &mut Fields::parse("config.json".as_ref(), json.as_bytes())?)
}

fn windows(config: &DecoderConfig) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn windows_are_where_each_family_has_them() {
    let of = |model_type, more| windows(&parse(model_type, &more).unwrap());
    assert_eq!(of("llama", json!({})), [None; 6]);
    // A field that is absent has a default, one that is null has none.
    assert_eq!(of("mistral", json!({})), [Some(4096); 6]);
    assert_eq!(of("mistral", json!({"sliding_window": null})), [None; 6]);
    assert_eq!(of("phi3", json!({"sliding_window": 7})), [Some(7); 6]);
    assert_eq!(of("qwen2", json!({"sliding_window": 7, "max_window_layers": 4})), [None; 6]);
    let qwen = json!({"sliding_window": 7, "max_window_layers": 4, "use_sliding_window": true});
    assert_eq!(of("qwen3", qwen), [None, None, None, None, Some(7), Some(7)]);
    let gemma = json!({"sliding_window": 7, "sliding_window_pattern": 3, "head_dim": 16});
    assert_eq!(of("gemma3_text", gemma), [Some(7), Some(7), None, Some(7), Some(7), None]);
}

#[test]
fn windows_of_both_directions_are_counted_as_their_fields_mean_them() {
    let gemma = json!({"use_bidirectional_attention": true, "sliding_window": 512, "sliding_window_pattern": 2});
    let gemma = parse("gemma3_text", &gemma).unwrap();
    assert_eq!(gemma.bidirectional, Some("use_bidirectional_attention"));
    assert_eq!(windows(&gemma)[..2], [Some(257), None]);
    let of = |more| parse("mistral", &more).unwrap();
    assert_eq!(windows(&of(json!({"is_causal": false, "sliding_window": 7}))), [Some(8); 6]);
    assert_eq!(of(json!({"is_causal": true, "sliding_window": 7})).bidirectional, None);
}

#[test]
fn experts_are_where_each_family_has_them() {
    let of = |model_type, more| -> Vec<usize> {
        let layers = parse(model_type, &more).unwrap().layers.into_iter().enumerate();
        layers.filter(|(_, layer)| layer.has_experts).map(|(index, _)| index).collect()
    };
    assert!(of("qwen3", json!({})).is_empty());
    assert_eq!(of("qwen3_moe", json!({})), [0, 1, 2, 3, 4, 5]);
    assert_eq!(of("qwen3_moe", json!({"decoder_sparse_step": 2})), [1, 3, 5]);
    let some = json!({"decoder_sparse_step": 2, "mlp_only_layers": [0, 3]});
    assert_eq!(of("qwen3_moe", some), [1, 5]);
    assert!(of("qwen3_moe", json!({"num_experts": 0})).is_empty());
    assert_eq!(of("gpt_oss", json!({})), [0, 1, 2, 3, 4, 5]);
    assert_eq!(parse("qwen3_moe", &json!({"num_experts": 0})).unwrap().experts, None);
}

#[test]
fn what_experts_do_is_said_by_names_of_all_versions() {
    let config = |model_type, more| parse(model_type, &more).unwrap();
    let now = config("qwen3_moe", json!({"num_local_experts": 9, "norm_topk_prob": true}));
    assert_eq!(now, config("qwen3_moe", json!({"num_experts": 9, "norm_topk_prob": true})));
    let experts = now.experts.unwrap();
    assert_eq!((experts.count, experts.top_k, experts.inner), (9, 8, 768));
    assert!(experts.normalizes && experts.scoring == Scoring::Softmax && !experts.has_bias);
    let oss = config("gpt_oss", json!({"swiglu_limit": 5.0, "head_dim": 16}));
    assert_eq!(windows(&oss), [Some(128), None, Some(128), None, Some(128), None]);
    assert!(oss.has_sinks && oss.qkv_bias && oss.out_bias);
    let experts = oss.experts.unwrap();
    assert_eq!((experts.count, experts.top_k, experts.inner), (128, 4, 96));
    assert_eq!(experts.clamped.unwrap().limit, 5.0);
    // The parameters of the rotation that a file without any means.
    let said = json!({"head_dim": 16, "swiglu_limit": 5.0, "rope_scaling": {"rope_type": "yarn",
        "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
        "original_max_position_embeddings": 4096}, "rope_theta": 150_000.0});
    assert_eq!(config("gpt_oss", said).ropes, oss.ropes);
}

#[test]
fn every_fourth_layer_of_a_smollm3_has_no_positions_unless_it_is_listed() {
    let turns = |more| -> Vec<bool> {
        let config = parse("smollm3", &more).unwrap();
        config.layers.iter().map(|layer| layer.rope.is_some()).collect()
    };
    assert_eq!(turns(json!({})), [true, true, true, false, true, true]);
    assert_eq!(
        turns(json!({"no_rope_layers": [0, 1, 0, 1, 0, 1]})),
        [false, true, false, true, false, true]
    );
}

#[test]
fn both_bases_of_gemma_are_read_in_the_words_of_both_versions() {
    let now = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}});
    let before = json!({"rope_theta": 5e5, "rope_local_base_freq": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let [now, before] = [now, before].map(|more| parse("gemma3_text", &more).unwrap());
    assert_eq!(now, before);
    assert_eq!(now.ropes.len(), 2);
    assert_ne!(now.ropes[0], now.ropes[1]);
}

#[test]
fn a_phi_reads_as_many_tokens_as_its_first_factors_are_for() {
    let config = parse(
        "phi3",
        &json!({"original_max_position_embeddings": 512, "rope_scaling": {
        "type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2]},
        "partial_rotary_factor": 0.75}),
    );
    assert_eq!(config.unwrap().positions_meant(), 512);
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    for (model_type, more, named) in [
        ("mamba", json!({}), "model_type"),
        ("llama", json!({"num_key_value_heads": 3}), "multiple"),
        ("llama", json!({"head_dim": 0}), "zero"),
        ("llama", json!({"head_dim": 15}), "even"),
        ("llama", json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers"),
        ("llama", json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        ("gemma3_text", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
        ("qwen2", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("qwen3_moe", json!({"num_experts": 1_000_000}), "num_experts"),
        ("qwen3_moe", json!({"num_experts_per_tok": 0}), "num_experts_per_tok"),
        ("qwen3_moe", json!({"moe_intermediate_size": 0}), "moe_intermediate_size"),
        ("gpt_oss", json!({"num_local_experts": 0}), "num_local_experts"),
        ("gpt_oss", json!({"swiglu_alpha": -1.0}), "swiglu_alpha"),
        ("gpt_oss", json!({"quantization_config": {"quant_method": "awq"}}), "awq"),
        ("qwen3", json!({"layer_types": vec!["linear_attention"; 6]}), "linear_attention"),
    ] {
        let error = parse(model_type, &more).unwrap_err().to_string();
        assert!(error.contains(named), "{model_type} {more}: {error}");
    }
}
