//! bf16 and int8 beside f32: how far vectors and scores may turn.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{data, f32_options, minilm_folder, rows};
use forebay_engine::{DType, EngineError, Finish, LoadOptions, ModelTask, PackedBatch, load};

fn options(dtype: DType) -> LoadOptions {
    LoadOptions { dtype: Some(dtype), ..LoadOptions::default() }
}

fn vectors(folder: &Path, options: &LoadOptions, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let mut model = load(folder, options).unwrap();
    let mut batch = PackedBatch::new();
    for ids in sequences {
        batch.push(ids, Finish::default());
    }
    model.engine.encoder().unwrap().compute(&batch).unwrap().rows().map(<[f32]>::to_vec).collect()
}

/// The smallest cosine between a sequence's vectors in f32 and in `dtype`.
fn cosine_min(folder: &Path, dtype: DType, sequences: &[Vec<u32>]) -> f64 {
    let single = vectors(folder, &f32_options(), sequences);
    let other = vectors(folder, &options(dtype), sequences);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosines =
        single.iter().zip(&other).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    cosines.fold(1.0, f64::min)
}

fn sequences(file: &str, field: &str) -> Vec<Vec<u32>> {
    rows(file, field).into_iter().map(|row| row.token_ids).collect()
}

#[test]
fn minilm_in_bf16_turns_no_vector_by_more_than_the_target() {
    let sequences = sequences("minilm_l6_v2.jsonl", "embedding");
    let cosine = cosine_min(&minilm_folder(), DType::Bf16, &sequences);
    assert!((0.999..0.999_999).contains(&cosine), "cosine {cosine}");
}

#[test]
fn minilm_in_int8_turns_no_vector_by_more_than_the_target() {
    let mut sequences = sequences("minilm_l6_v2.jsonl", "embedding");
    let all = cosine_min(&minilm_folder(), DType::Int8, &sequences);
    sequences.retain(|ids| ids.len() > 3);
    let texts = cosine_min(&minilm_folder(), DType::Int8, &sequences);
    assert!((0.995..0.999_9).contains(&texts), "cosine {texts}");
    // Nothing at all, and one word that is none, turn most: there are no other tokens to even it out.
    assert!(all >= 0.99, "cosine {all}");
}

#[test]
fn every_family_that_embeds_keeps_its_vectors_in_bf16_and_int8() {
    for name in ["bert", "distilbert", "mpnet", "modernbert", "nomic", "jina"] {
        let folder = data().join("tiny").join(name);
        let sequences = sequences(&format!("tiny/{name}/expected.jsonl"), "mean");
        // Weights that were never trained amplify roundings more than a model's do.
        for (dtype, least) in [(DType::Bf16, 0.998), (DType::Int8, 0.985)] {
            let cosine = cosine_min(&folder, dtype, &sequences);
            assert!(cosine >= least, "{name} in {dtype}: cosine {cosine}");
        }
    }
}

#[test]
fn scores_are_f32_unless_bf16_is_asked_for() {
    let folder = data().join("tiny/bert-rerank");
    let by_default = load(&folder, &LoadOptions::default()).unwrap();
    assert_eq!((by_default.info.task, by_default.info.dtype), (ModelTask::Rerank, DType::F32));
    assert_eq!(load(&folder, &options(DType::Bf16)).unwrap().info.dtype, DType::Bf16);
}

#[test]
fn a_family_that_computes_only_in_f32_says_so() {
    let error = load(&data().join("tiny/deberta-v2-rerank"), &options(DType::Bf16)).err().unwrap();
    assert!(matches!(error, EngineError::DTypeNotSupported { .. }), "{error}");
    assert!(error.to_string().contains("deberta-v2"), "{error}");
}
