//! Each family of encoders against what `PyTorch` computes for the same small random weights.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_close, copy_of, data, edit_json, f32_options};
use forebay_engine::{Finish, Model, ModelTask, PackedBatch, Pooling, load};
use serde_json::Value;

/// A line of `expected.jsonl`.
struct Expected {
    token_ids: Vec<u32>,
    /// Of a pair, how many tokens are of the first text.
    first_len: usize,
    text: Option<String>,
    pair: Option<(String, String)>,
    values: Vec<f32>,
}

fn open(name: &str, field: &str) -> (Model, Vec<Expected>) {
    let folder = data().join("tiny").join(name);
    let lines = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    let rows = lines.lines().map(|line| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let token_ids: Vec<u32> = serde_json::from_value(value["token_ids"].take()).unwrap();
        let type_ids: Option<Vec<u32>> = serde_json::from_value(value["type_ids"].take()).unwrap();
        let second = type_ids.and_then(|ids| ids.iter().position(|&id| id == 1));
        let string = |value: &Value| value.as_str().map(ToOwned::to_owned);
        Expected {
            first_len: second.unwrap_or(token_ids.len()),
            token_ids,
            text: string(&value["text"]),
            pair: string(&value["query"]).zip(string(&value["document"])),
            values: serde_json::from_value(value[field].take()).unwrap(),
        }
    });
    (load(&folder, &f32_options()).unwrap(), rows.collect())
}

/// All rows in one batch, and each alone.
fn compute(model: &mut Model, rows: &[Expected]) -> Vec<Vec<f32>> {
    let mut all = PackedBatch::new();
    for row in rows {
        all.push_pair(&row.token_ids, row.first_len, Finish::default());
    }
    let together = model.engine.encoder().unwrap().compute(&all).unwrap();
    for (row, expected) in rows.iter().zip(together.rows()) {
        let mut alone = PackedBatch::new();
        alone.push_pair(&row.token_ids, row.first_len, Finish::default());
        assert_eq!(model.engine.encoder().unwrap().compute(&alone).unwrap().row(0), expected);
    }
    together.rows().map(<[f32]>::to_vec).collect()
}

fn assert_embeds(name: &str) {
    assert_embeds_pooled(name, "mean", Pooling::Mean);
}

fn assert_embeds_pooled(name: &str, field: &str, pooling: Pooling) {
    let (mut model, rows) = open(name, field);
    assert_eq!(model.info.pooling, [pooling]);
    assert_eq!(model.info.task, ModelTask::Embed);
    for (row, vector) in rows.iter().zip(compute(&mut model, &rows)) {
        let text = row.text.as_deref().unwrap();
        assert_close(&vector, &row.values, text);
        assert_eq!(model.tokenizer.encode(text).unwrap().ids, row.token_ids, "{text:?}");
    }
}

fn assert_scores(actual: &[f32], expected: &[f32], row: &Expected) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-4, "{:?}: {actual}, not {expected}", row.pair);
    }
}

fn assert_reranks(name: &str) {
    let (mut model, rows) = open(name, "logits");
    assert_eq!((model.info.task, model.info.dim), (ModelTask::Rerank, 1));
    for (row, scores) in rows.iter().zip(compute(&mut model, &rows)) {
        assert_scores(&scores, &row.values, row);
    }
}

#[test]
fn distilbert_agrees_with_transformers() {
    assert_embeds("distilbert");
}

#[test]
fn mpnet_agrees_with_transformers() {
    assert_embeds("mpnet");
}

/// The shape of Snowflake's Arctic Embed l v2 and of multilingual E5 with instructions: callers write the prompt.
#[test]
fn an_xlm_roberta_agrees_with_sentence_transformers_with_and_without_prompts() {
    assert_embeds_pooled("xlm-roberta", "cls", Pooling::Cls);
}

#[test]
fn modernbert_agrees_with_transformers() {
    assert_embeds_pooled("modernbert", "cls", Pooling::Cls);
}

#[test]
fn nomic_agrees_with_its_formulas_in_pytorch() {
    assert_embeds("nomic");
}

#[test]
fn a_bert_with_alibi_and_gates_agrees_with_its_formulas_in_pytorch() {
    assert_embeds("jina");
}

#[test]
fn gte_agrees_with_its_formulas_in_pytorch() {
    assert_embeds("gte");
}

/// Its weights have the same names where transformers saves them. It has no NTK scaling there.
#[test]
fn gte_as_transformers_saves_it_gives_the_same_vectors() {
    let [copy, plain] = ["gte", "gte"].map(copy_of);
    for folder in [&copy, &plain] {
        edit_json(&folder.path().join("config.json"), |config| {
            config.insert("rope_scaling".into(), Value::Null);
        });
    }
    edit_json(&copy.path().join("config.json"), |config| {
        let theta = config.remove("rope_theta").unwrap();
        for field in ["layer_norm_type", "pack_qkv", "position_embedding_type"] {
            config.remove(field);
        }
        config.insert("model_type".into(), "gte".into());
        config.insert("architectures".into(), vec!["GteModel"].into());
        let parameters = serde_json::json!({"rope_theta": theta, "rope_type": "default"});
        config.insert("rope_parameters".into(), parameters);
    });
    let mut model = load(copy.path(), &f32_options()).unwrap();
    assert_eq!(model.info.architecture, "gte");
    let mut new = load(plain.path(), &f32_options()).unwrap();
    let (_, rows) = open("gte", "mean");
    assert_eq!(compute(&mut model, &rows), compute(&mut new, &rows));
}

#[test]
fn gte_reranks_as_its_formulas_in_pytorch() {
    assert_reranks("gte-rerank");
}

#[test]
fn a_bert_reranks_as_transformers_does() {
    assert_reranks("bert-rerank");
}

#[test]
fn an_xlm_roberta_reranks_as_transformers_does() {
    assert_reranks("xlm-roberta-rerank");
}

#[test]
fn a_deberta_reranks_as_transformers_does() {
    assert_reranks("deberta-v2-rerank");
}

#[test]
fn a_roberta_classifies_as_transformers_does() {
    let (mut model, rows) = open("roberta-classify", "logits");
    assert_eq!(model.info.task, ModelTask::Classify);
    assert_eq!(model.info.labels, ["low", "mid", "high"]);
    for (row, scores) in rows.iter().zip(compute(&mut model, &rows)) {
        let powers: Vec<f32> = row.values.iter().map(|logit| logit.exp()).collect();
        let sum: f32 = powers.iter().sum();
        let expected: Vec<f32> = powers.iter().map(|power| power / sum).collect();
        assert_scores(&scores, &expected, row);
    }
}
