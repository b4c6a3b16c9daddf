//! Whole models against what `PyTorch` computed: token ids exact, vectors to f32 rounding, alone or batched.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Row, assert_close, data, embed, load_f32, minilm_folder, rows, tiny_folder};
use forebay_engine::{Model, Pooling};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn assert_rows_close(model: &mut Model, rows: &[Row], order: &[usize]) {
    let vectors = embed(model, order.iter().map(|&row| rows[row].token_ids.as_slice()));
    for (vector, &row) in vectors.iter().zip(order) {
        assert_close(vector, &rows[row].embedding, &rows[row].text);
    }
}

fn assert_tokens_equal(model: &Model, rows: &[Row]) {
    for row in rows {
        assert_eq!(model.tokenizer.encode(&row.text).unwrap().ids, row.token_ids, "{:?}", row.text);
    }
}

fn assert_close_alone_and_batched(model: &mut Model, rows: &[Row]) {
    let all: Vec<usize> = (0..rows.len()).collect();
    for &row in &all {
        assert_rows_close(model, rows, &[row]);
    }
    assert_rows_close(model, rows, &all);
    // The runner's own seed is fixed, so a failure repeats.
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    for _ in 0..3 {
        let order = Just(all.clone()).prop_shuffle().new_tree(&mut runner).unwrap().current();
        let size = (1..=rows.len()).new_tree(&mut runner).unwrap().current();
        for batch in order.chunks(size) {
            assert_rows_close(model, rows, batch);
        }
    }
}

#[test]
fn minilm_agrees_with_sentence_transformers_alone_and_batched() {
    let rows = rows("minilm_l6_v2.jsonl", "embedding");
    let mut model = load_f32(&minilm_folder());
    assert_eq!(
        (model.info.dim, model.info.tokens_max, &model.info.pooling[..]),
        (384, 256, &[Pooling::Mean][..])
    );
    assert_eq!(rows.len(), 128);
    assert_tokens_equal(&model, &rows);
    assert_close_alone_and_batched(&mut model, &rows);
}

#[test]
fn our_own_tokens_of_real_texts_are_the_library_s() {
    let model = load_f32(&minilm_folder());
    let path = minilm_folder().join("tokenizer.json");
    let mut library = tokenizers::Tokenizer::from_file(path).unwrap();
    library.with_padding(None);
    let cut = tokenizers::TruncationParams { max_length: 256, ..Default::default() };
    library.with_truncation(Some(cut)).unwrap();
    let texts = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/descriptions.jsonl");
    let mut count = 0;
    for line in std::fs::read_to_string(texts).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        let theirs = library.encode_fast(text, true).unwrap();
        assert_eq!(model.tokenizer.encode(text).unwrap().ids, theirs.get_ids(), "{text:?}");
        count += 1;
    }
    assert_eq!(count, 2_000);
}

#[test]
fn a_mean_pooled_bert_agrees_with_transformers_alone_and_batched() {
    let rows = rows("tiny/bert/expected.jsonl", "mean");
    let mut model = load_f32(&tiny_folder());
    assert_eq!(
        (model.info.dim, model.info.tokens_max, &model.info.pooling[..]),
        (64, 128, &[Pooling::Mean][..])
    );
    assert_tokens_equal(&model, &rows);
    assert_close_alone_and_batched(&mut model, &rows);
}

#[test]
fn a_cls_pooled_bert_agrees_with_transformers() {
    let rows = rows("tiny/bert/expected.jsonl", "cls");
    let folder = common::tiny_copy();
    std::fs::copy(
        data().join("tiny/bert-cls/1_Pooling/config.json"),
        folder.path().join("1_Pooling/config.json"),
    )
    .unwrap();
    let mut model = load_f32(folder.path());
    assert_eq!(model.info.pooling, [Pooling::Cls]);
    assert_close_alone_and_batched(&mut model, &rows);
}

#[test]
fn a_repeated_batch_gives_the_same_bits() {
    let rows = rows("tiny/bert/expected.jsonl", "mean");
    let mut model = load_f32(&tiny_folder());
    let mut all = || embed(&mut model, rows.iter().map(|row| row.token_ids.as_slice()));
    assert_eq!(all(), all());
}
