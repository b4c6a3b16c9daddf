//! The meaning of configurations, in the words of several versions.
#![allow(clippy::unwrap_used)]

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
        ("qwen3", json!({"layer_types": vec!["linear_attention"; 6]}), "linear_attention"),
    ] {
        let error = parse(model_type, &more).unwrap_err().to_string();
        assert!(error.contains(named), "{model_type} {more}: {error}");
    }
}
