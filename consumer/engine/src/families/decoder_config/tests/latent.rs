//! Configurations of models with latent attention, as their makers publish them.

use forebay_kernels::{Groups, Scoring};
use serde_json::{Value, json};

use super::{DecoderConfig, EngineError, Fields};

/// `DeepSeek` V3's, with fields of training and of other programs.
fn v3() -> Value {
    json!({
        "attention_bias": false, "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
        "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163_840,
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
        "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128]},
        "rms_norm_eps": 1e-6, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
            "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true,
        "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
        "use_cache": true, "v_head_dim": 128, "vocab_size": 129_280,
    })
}

fn fields(config: &Value, more: &Value) -> Fields {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Fields::parse("config.json".as_ref(), config.to_string().as_bytes()).unwrap()
}

fn parse(model_type: &str, more: &Value) -> Result<DecoderConfig, EngineError> {
    DecoderConfig::parse(model_type, &mut fields(&v3(), more))
}

#[test]
fn all_fields_of_deepseek_v3_are_known() {
    let mut fields = fields(&v3(), &json!({}));
    let config = DecoderConfig::parse("deepseek_v3", &mut fields).unwrap();
    let unknown: Vec<_> = fields.ignored().into_iter().filter(|field| !field.is_known).collect();
    assert_eq!(unknown, []);
    let experts = config.experts.as_ref().unwrap();
    assert_eq!((experts.count, experts.top_k, experts.inner, experts.shared), (256, 8, 2048, 2048));
    assert_eq!(experts.groups, Some(Groups { count: 8, kept: 4, best: 2 }));
    assert_eq!((experts.scoring, experts.scale), (Scoring::Sigmoid, 2.5));
    assert!(experts.normalizes && experts.is_corrected);
    let dense = config.layers.iter().take_while(|layer| !layer.has_experts).count();
    assert_eq!((dense, config.layers.len()), (3, 61));
    // The root of 192, and YaRN's 0.1 ln 40 + 1, squared.
    let amplitude = 0.1 * 40_f64.ln() + 1.0;
    let expected = 192_f64.sqrt().recip() * amplitude * amplitude;
    assert!((f64::from(config.scale.unwrap()) - expected).abs() < 1e-8);
    // A token's 576 values in 61 layers, of 32 tokens, in two bytes.
    assert_eq!(config.page_bytes(candle_core::DType::BF16), 576 * 61 * 32 * 2);
}

#[test]
fn the_families_differ_in_their_routers() {
    let lite = json!({"q_lora_rank": null, "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1,
        "norm_topk_prob": false, "scoring_func": "softmax", "topk_method": "greedy", "n_group": 1, "topk_group": 1,
        "routed_scaling_factor": 1.0, "quantization_config": null});
    let lite = parse("deepseek_v2", &lite).unwrap();
    let experts = lite.experts.unwrap();
    assert_eq!((experts.scoring, experts.groups, experts.shared), (Scoring::Softmax, None, 4096));
    assert!(!experts.normalizes && !experts.is_corrected && lite.latent.unwrap().q_rank.is_none());
    let whole = json!({"scoring_func": "softmax", "topk_method": "group_limited_greedy", "norm_topk_prob": false});
    let whole = parse("deepseek_v2", &whole).unwrap().experts.unwrap();
    assert_eq!(whole.groups, Some(Groups { count: 8, kept: 4, best: 1 }));
    let kimi =
        json!({"n_group": 1, "topk_group": 1, "n_routed_experts": 384, "first_k_dense_replace": 1});
    let kimi = parse("kimi_k2", &kimi).unwrap().experts.unwrap();
    assert_eq!((kimi.count, kimi.groups), (384, None));
    let listed: Vec<&str> = std::iter::repeat_n("dense", 60).chain(["sparse"]).collect();
    let listed = parse("glm4_moe_lite", &json!({"mlp_layer_types": listed})).unwrap();
    assert_eq!(listed.layers.iter().filter(|layer| layer.has_experts).count(), 1);
    let dense = parse("deepseek_v3", &json!({"first_k_dense_replace": 61})).unwrap();
    assert!(dense.experts.is_none() && dense.latent.is_some());
}

#[test]
fn an_indexer_bounds_the_length() {
    let config = parse("deepseek_v32", &json!({"index_topk": 2048, "index_n_heads": 64})).unwrap();
    assert_eq!((config.positions, config.positions_meant()), (2048, 2048));
    assert_eq!(parse("deepseek_v3", &json!({})).unwrap().positions, 163_840);
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    for (model_type, more, named) in [
        ("deepseek_v3", json!({"scoring_func": "softmax"}), "scoring_func"),
        ("deepseek_v3", json!({"topk_method": "greedy"}), "topk_method"),
        ("deepseek_v2", json!({"scoring_func": "sigmoid"}), "scoring_func"),
        ("deepseek_v3", json!({"moe_layer_freq": 2}), "moe_layer_freq"),
        ("deepseek_v3", json!({"n_group": 7}), "n_group"),
        ("deepseek_v3", json!({"topk_group": 9}), "topk_group"),
        ("deepseek_v3", json!({"num_experts_per_tok": 129}), "topk_group"),
        ("deepseek_v3", json!({"num_key_value_heads": 64}), "num_key_value_heads"),
        ("deepseek_v3", json!({"qk_rope_head_dim": 63}), "qk_rope_head_dim"),
        ("deepseek_v3", json!({"kv_lora_rank": 1_000_000}), "kv_lora_rank"),
        (
            "deepseek_v3",
            json!({"quantization_config": {"quant_method": "awq"}}),
            "quantization_config",
        ),
        ("deepseek_v32", json!({"index_topk": 0}), "index_topk"),
        ("glm4_moe_lite", json!({"mlp_layer_types": ["dense"]}), "mlp_layer_types"),
    ] {
        let error = parse(model_type, &more).unwrap_err().to_string();
        assert!(error.contains(named), "{model_type} {more}: {error}");
    }
}
