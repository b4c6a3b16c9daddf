//! Models with latent attention as their makers publish them: weights in FP8, layers that guess further tokens, keys
//! that an indexer chooses; and what is refused of them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{copy_of, edit_json, f32_options};
use forebay_engine::{Chunk, EngineError, LoadOptions, Pick, Picked, Sampling, Step, load};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const MODEL: &str = "deepseek3";
const BLOCK: usize = 128;

/// A tensor that is to be written.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
}

/// Rewrites the weights of a model.
fn edit_tensors(folder: &Path, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let whole = SafeTensors::deserialize(&file).unwrap();
    let stored = |view: TensorView<'_>| Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    let mut tensors = whole.iter().map(|(name, view)| (name.to_owned(), stored(view))).collect();
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, Stored { dtype, shape, bytes })| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn edit_config(folder: &Path, field: &str, value: Value) {
    edit_json(&folder.join("config.json"), |config| {
        config.insert(field.to_owned(), value);
    });
}

/// The next tokens of a prompt.
fn continued(folder: &Path) -> Vec<Picked> {
    let mut generator = load(folder, &f32_options()).unwrap().engine.into_generator().unwrap();
    let mut tokens: Vec<u32> = (0..50).map(|at| at * 7 % 256).collect();
    let opened = generator.open(&tokens, 0).unwrap();
    let sampling = Sampling { logprobs: Some(2), ..Sampling::default() };
    let mut done = 0;
    let mut made = Vec::new();
    while made.len() < 8 {
        let pick = Some(Pick { sampling: &sampling, prompt_tokens: 50, mask: None });
        let rows = vec![Chunk { id: opened.id, tokens: &tokens[done..], pick }];
        let picked = generator.begin(&Step { rows }).unwrap().wait().unwrap().picked.remove(0).1;
        done = tokens.len();
        tokens.push(picked.token);
        made.push(picked);
    }
    made
}

/// The number that eight bits stand for, by way of f32's own bits: exponents are 120 apart.
fn e4m3(bits: u8) -> f32 {
    let value = f32::from_bits(u32::from(bits & 0x7F) << 20) * 2_f32.powi(120);
    if bits & 0x80 == 0 { value } else { -value }
}

#[test]
fn weights_in_fp8_give_the_bits_of_the_numbers_that_they_stand_for() {
    let [eight, wide] = [copy_of(MODEL), copy_of(MODEL)];
    let is_matrix = |name: &str, stored: &Stored| {
        name.contains("_proj") && stored.shape.len() == 2 && name.ends_with(".weight")
    };
    let scale = |row: usize, column: usize| 0.01 * (1.0 + (row + 2 * column) as f32);
    // Of every code but the two that are no numbers, and larger ones seldom.
    let code = |at: usize| (at * 37 % 96) as u8 | u8::from(at.is_multiple_of(3)) << 7;
    edit_tensors(eight.path(), |tensors| {
        let mut scales = Vec::new();
        for (name, stored) in tensors.iter_mut().filter(|(name, stored)| is_matrix(name, stored)) {
            let count: usize = stored.shape.iter().product();
            let bytes = (0..count).map(code).collect();
            *stored = Stored { dtype: Dtype::F8_E4M3, shape: stored.shape.clone(), bytes };
            let shape = [stored.shape[0].div_ceil(BLOCK), stored.shape[1].div_ceil(BLOCK)];
            let of = |at: usize| scale(at / shape[1], at % shape[1]);
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(of).collect();
            scales.push((format!("{name}_scale_inv"), Stored::f32(&shape, &values)));
        }
        assert!(scales.len() > 15);
        tensors.extend(scales);
    });
    edit_tensors(wide.path(), |tensors| {
        for (_, stored) in tensors.iter_mut().filter(|(name, stored)| is_matrix(name, stored)) {
            let [rows, columns] = [stored.shape[0], stored.shape[1]];
            let value =
                |at: usize| e4m3(code(at)) * scale(at / columns / BLOCK, at % columns / BLOCK);
            let values: Vec<f32> = (0..rows * columns).map(value).collect();
            *stored = Stored::f32(&[rows, columns], &values);
        }
    });
    let quantized = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK]});
    edit_config(eight.path(), "quantization_config", quantized);
    assert_eq!(continued(eight.path()), continued(wide.path()));
    // Without its scales a matrix is nothing.
    edit_tensors(eight.path(), |tensors| {
        tensors.remove("model.layers.0.self_attn.kv_b_proj.weight_scale_inv").unwrap();
    });
    let error = load(eight.path(), &f32_options()).err().unwrap();
    assert!(matches!(error, EngineError::TensorMissing { .. }), "{error}");
}

#[test]
fn a_layer_that_guesses_further_tokens_is_left_out() {
    let folder = copy_of(MODEL);
    let expected = continued(folder.path());
    edit_tensors(folder.path(), |tensors| {
        let layers =
            tensors.keys().filter_map(|name| name.split('.').nth(2)?.parse::<usize>().ok());
        let next = layers.max().unwrap() + 1;
        for part in ["eh_proj", "self_attn.q_a_proj", "shared_head.head"] {
            let stored = Stored::f32(&[4, 4], &[f32::NAN; 16]);
            tensors.insert(format!("model.layers.{next}.{part}.weight"), stored);
        }
    });
    edit_config(folder.path(), "num_nextn_predict_layers", json!(1));
    assert_eq!(continued(folder.path()), expected);
}

/// With no more keys than the indexer would choose, all are chosen: the tensors of the indexer count for nothing.
#[test]
fn a_model_with_an_indexer_reads_as_many_tokens_as_that_would_choose() {
    let folder = copy_of(MODEL);
    let expected = continued(folder.path());
    edit_config(folder.path(), "model_type", json!("deepseek_v32"));
    edit_config(folder.path(), "index_topk", json!(96));
    edit_json(&folder.path().join("config.json"), |config| {
        config.remove("rope_interleave");
        config.insert("index_n_heads".to_owned(), json!(2));
    });
    assert_eq!(continued(folder.path()), expected);
    let options = LoadOptions { context_max: Some(500), ..f32_options() };
    let model = load(folder.path(), &options).unwrap();
    assert_eq!(model.info.tokens_max, 96);
}

#[test]
fn a_page_holds_one_latent_key_a_token() {
    let model = load(copy_of(MODEL).path(), &f32_options()).unwrap();
    let layers = 3;
    // kv_lora_rank and qk_rope_head_dim, of four bytes each.
    let bytes = layers * (40 + 8) * 4;
    assert_eq!(model.engine.into_generator().unwrap().room().bytes_per_token, bytes);
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    for (field, value, named) in [
        ("kv_lora_rank", json!(0), "kv_lora_rank"),
        ("kv_lora_rank", json!(null), "kv_lora_rank"),
        ("qk_rope_head_dim", json!(7), "qk_rope_head_dim"),
        ("kv_lora_rank", json!(44), "kv_b_proj"),
        ("q_lora_rank", json!(null), "q_proj"),
        ("num_key_value_heads", json!(2), "num_key_value_heads"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
    ] {
        let folder = copy_of(MODEL);
        edit_config(folder.path(), field, value.clone());
        let error = load(folder.path(), &f32_options()).err().unwrap().to_string();
        assert!(error.contains(named), "{field} = {value}: {error}");
    }
}
