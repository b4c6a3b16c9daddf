//! Decoders that embed and rerank, against what sentence-transformers computes for the same small random weights.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{copy_of, data, edit_json, f32_options};
use forebay_engine::{
    DType, EngineError, Finish, LoadOptions, Model, ModelTask, PackedBatch, Pooling, Tokens, load,
};
use serde_json::{Value, json};

/// A line of `expected.jsonl`: a text, or a query with a document.
struct Row {
    text: String,
    document: Option<String>,
    token_ids: Vec<u32>,
    values: Vec<f32>,
}

fn rows(name: &str) -> Vec<Row> {
    let lines = std::fs::read_to_string(data().join("tiny").join(name).join("expected.jsonl"));
    let row = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let document = value["document"].as_str().map(ToOwned::to_owned);
        let [text, values] =
            if document.is_some() { ["query", "logits"] } else { ["text", "vector"] };
        Row {
            text: value[text].as_str().unwrap().to_owned(),
            document,
            token_ids: serde_json::from_value(value["token_ids"].take()).unwrap(),
            values: serde_json::from_value(value[values].take()).unwrap(),
        }
    };
    lines.unwrap().lines().map(row).collect()
}

fn open(name: &str, dtype: DType) -> Model {
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    load(&data().join("tiny").join(name), &options).unwrap()
}

fn encode(model: &Model, row: &Row) -> Tokens {
    let tokenizer = &model.tokenizer;
    match &row.document {
        None => tokenizer.encode(&row.text).unwrap(),
        Some(document) => {
            tokenizer.encode_pair(&tokenizer.first_of_pairs(&row.text).unwrap(), document).unwrap()
        }
    }
}

/// The rows of all texts in one batch, which are those of each alone, by bits.
fn compute(model: &mut Model, rows: &[Row]) -> Vec<Vec<f32>> {
    let mut all = PackedBatch::new();
    let alone: Vec<Vec<f32>> = rows
        .iter()
        .map(|row| {
            let ids = encode(model, row).ids;
            all.push(&ids, Finish::default());
            let mut one = PackedBatch::new();
            one.push(&ids, Finish::default());
            model.engine.encoder().unwrap().compute(&one).unwrap().row(0).to_vec()
        })
        .collect();
    let together = model.engine.encoder().unwrap().compute(&all).unwrap();
    for (alone, together) in alone.iter().zip(together.rows()) {
        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(alone), bits(together));
    }
    alone
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Vectors of texts of several lengths, with prompts and cut, are those of sentence-transformers.
fn assert_embeds(name: &str, pooling: Pooling) {
    let rows = rows(name);
    let mut model = open(name, DType::F32);
    assert_eq!((model.info.task, &model.info.pooling[..]), (ModelTask::Embed, &[pooling][..]));
    for row in &rows {
        assert_eq!(encode(&model, row).ids, row.token_ids, "{name}: {:?}", row.text);
    }
    assert!(rows.iter().any(|row| encode(&model, row).truncated));
    for (row, vector) in rows.iter().zip(compute(&mut model, &rows)) {
        let cosine = cosine(&vector, &row.values);
        assert!(cosine > 1.0 - 1e-6, "{name}: {cosine} for {:?}", row.text);
    }
    for (dtype, least) in [(DType::Bf16, 0.99), (DType::Int8, 0.95)] {
        for (row, vector) in rows.iter().zip(compute(&mut open(name, dtype), &rows)) {
            let cosine = cosine(&vector, &row.values);
            assert!(cosine > least, "{name} in {dtype}: {cosine} for {:?}", row.text);
        }
    }
}

fn assert_scores(model: &mut Model, name: &str) {
    assert_eq!((model.info.task, model.info.dim), (ModelTask::Rerank, 1));
    let rows = rows(name);
    for row in &rows {
        assert_eq!(encode(model, row).ids, row.token_ids, "{name}: {:?}", row.document);
    }
    assert!(rows.iter().any(|row| encode(model, row).truncated));
    for (row, score) in rows.iter().zip(compute(model, &rows)) {
        let difference = (score[0] - row.values[0]).abs();
        assert!(difference < 1e-5, "{name}: off by {difference} for {:?}", row.document);
    }
}

#[test]
fn a_qwen3_embeds_by_the_last_token_that_its_tokenizer_appends() {
    assert_embeds("qwen3-embed", Pooling::Last);
}

#[test]
fn a_mistral_embeds_through_its_windows() {
    assert_embeds("mistral-embed", Pooling::Last);
}

#[test]
fn a_qwen2_that_is_not_causal_sees_later_tokens_through_windows_too() {
    assert_embeds("qwen2-embed", Pooling::Last);
}

#[test]
fn a_gemma3_of_both_directions_embeds_by_the_mean_and_two_linear_layers() {
    assert_embeds("gemma3-embed", Pooling::Mean);
}

#[test]
fn a_qwen3_reranks_by_the_answer_to_its_chat_template() {
    let mut model = open("qwen3-rerank", DType::F32);
    let prompt = model.info.pair_prompt.clone().unwrap();
    assert!(prompt.contains("<Query>: {query}\n<Document>: {document}<|im_end|>"), "{prompt}");
    assert_scores(&mut model, "qwen3-rerank");
}

#[test]
fn a_decoder_with_a_head_of_its_own_passes_over_the_token_that_fills_up() {
    assert_scores(&mut open("qwen3-score", DType::F32), "qwen3-score");
    // Nor do modules that say nothing change anything.
    let copy = copy_of("qwen3-score");
    for file in ["modules.json", "sentence_bert_config.json"] {
        std::fs::remove_file(copy.path().join(file)).unwrap();
    }
    assert_scores(&mut load(copy.path(), &f32_options()).unwrap(), "qwen3-score");
}

/// As Qwen3-Reranker was released: a language model, whose folder doesn't say that it reranks.
fn released() -> tempfile::TempDir {
    let copy = copy_of("qwen3-rerank");
    for file in ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"] {
        std::fs::remove_file(copy.path().join(file)).unwrap();
    }
    std::fs::remove_dir_all(copy.path().join("1_LogitScore")).unwrap();
    copy
}

fn as_reranker(folder: &Path) -> Result<Model, EngineError> {
    load(folder, &LoadOptions { reranks: true, ..f32_options() })
}

#[test]
fn a_qwen3_reranks_by_its_own_prompt_where_the_caller_says_that_it_does() {
    let copy = released();
    let template = copy.path().join("chat_template.jinja");
    // That of the language model that it was: no query gets into it.
    let chat =
        "{% for it in messages %}{% if it.role == 'user' %}{{ it.content }}{% endif %}{% endfor %}";
    std::fs::write(&template, chat).unwrap();
    assert_eq!(load(copy.path(), &f32_options()).unwrap().info.task, ModelTask::Generate);
    assert_scores(&mut as_reranker(copy.path()).unwrap(), "qwen3-rerank");
    std::fs::remove_file(&template).unwrap();
    assert_scores(&mut as_reranker(copy.path()).unwrap(), "qwen3-rerank");
    // No other family has a prompt of its own.
    edit_json(&copy.path().join("config.json"), |config| {
        config.insert("model_type".into(), "qwen2".into());
    });
    assert_refused(as_reranker(copy.path()), "chat_template");
}

#[test]
fn a_template_that_both_texts_get_into_is_the_prompt_without_modules_too() {
    let copy = released();
    let template = "{{ messages[0].content }} ? {{ messages[1].content }} !";
    std::fs::write(copy.path().join("chat_template.jinja"), template).unwrap();
    let model = as_reranker(copy.path()).unwrap();
    assert_eq!(model.info.pair_prompt.as_deref(), Some("{query} ? {document} !"));
}

fn assert_refused(result: Result<Model, EngineError>, named: &str) {
    let Err(EngineError::NotSupported { field, .. }) = &result else {
        panic!("{named}: {:?}", result.map(|model| model.info))
    };
    assert_eq!(*field, named);
}

#[test]
fn folders_that_cannot_embed_or_rerank_are_refused_by_name() {
    // Fields of these files, at values that nothing is computed for.
    for (model, file, field, value, named) in [
        ("qwen3-embed", "config.json", "auto_map", json!({"AutoModel": "m.Q"}), "auto_map"),
        (
            "qwen3-rerank",
            "sentence_bert_config.json",
            "transformer_task",
            json!("any-to-any"),
            "transformer_task",
        ),
        (
            "qwen3-rerank",
            "sentence_bert_config.json",
            "modality_config",
            json!({"message": {"format": "structured"}}),
            "modality_config",
        ),
        (
            "qwen3-rerank",
            "sentence_bert_config.json",
            "processing_kwargs",
            json!({"chat_template": {"max_length": 9}}),
            "processing_kwargs",
        ),
        (
            "qwen3-rerank",
            "1_LogitScore/config.json",
            "module_input_name",
            json!("scores"),
            "module_input_name",
        ),
    ] {
        let copy = copy_of(model);
        edit_json(&copy.path().join(file), |json| {
            json.insert(field.into(), value.clone());
        });
        assert_refused(load(copy.path(), &f32_options()), named);
    }
    // Neither reranks: one embeds, the other has no prompt to be asked by.
    assert_refused(as_reranker(&data().join("tiny/qwen3-embed")), "task");
    assert_refused(as_reranker(&data().join("tiny/llama")), "chat_template");
    // A template that neither text gets into.
    let copy = copy_of("qwen3-rerank");
    std::fs::write(copy.path().join("chat_template.jinja"), "hello").unwrap();
    assert_refused(load(copy.path(), &f32_options()), "chat_template");
}

/// As in transformers 5, where `tokenizer.json` alone decides it.
#[test]
fn an_end_of_text_that_is_asked_for_and_not_appended_is_reported() {
    for (model, is_appended) in [("qwen3-embed", true), ("gemma3-embed", false)] {
        let copy = copy_of(model);
        edit_json(&copy.path().join("tokenizer_config.json"), |json| {
            json.insert("add_eos_token".into(), true.into());
        });
        let ignored = load(copy.path(), &f32_options()).unwrap().info.ignored;
        let is_reported = ignored.iter().any(|it| it.field == "add_eos_token" && !it.is_known);
        assert_eq!(is_reported, !is_appended, "{model}");
    }
}

#[test]
fn an_answer_outside_the_vocabulary_is_refused() {
    let copy = copy_of("qwen3-rerank");
    edit_json(&copy.path().join("1_LogitScore/config.json"), |json| {
        json.insert("true_token_id".into(), 400.into());
    });
    let error = load(copy.path(), &f32_options()).err().unwrap().to_string();
    assert!(error.contains("400"), "{error}");
}

#[test]
fn decoders_that_see_later_tokens_do_not_generate() {
    let copy = copy_of("qwen3");
    edit_json(&copy.path().join("config.json"), |json| {
        json.insert("is_causal".into(), false.into());
    });
    assert_refused(load(copy.path(), &f32_options()), "is_causal");
}
