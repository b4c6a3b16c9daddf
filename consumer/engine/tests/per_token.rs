//! Sparse vectors and token vectors against what sentence-transformers computes for the same small random weights.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{assert_close, copy_of, data, edit_json, f32_options, load_f32};
use forebay_engine::{
    Device, EngineError, Finish, InputType, LoadOptions, Model, ModelTask, PackedBatch, load,
};
use serde_json::Value;

fn open(name: &str, task: ModelTask) -> (Model, Vec<Value>) {
    open_folder(&data().join("tiny").join(name), task)
}

fn open_folder(folder: &Path, task: ModelTask) -> (Model, Vec<Value>) {
    let lines = fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let model = load(folder, &f32_options()).unwrap();
    assert_eq!(model.info.task, task);
    (model, rows)
}

/// All texts in one batch; each alone gives the same bits.
fn compute(model: &mut Model, texts: &[(InputType, &[u32])]) -> Vec<Vec<f32>> {
    let mut all = PackedBatch::new();
    for (input_type, ids) in texts {
        all.push_as(*input_type, ids, ids.len(), Finish::default());
    }
    let together = model.engine.encoder().unwrap().compute(&all).unwrap();
    for (index, row) in together.rows().enumerate() {
        let mut alone = PackedBatch::new();
        alone.push_from(&all, index);
        assert_eq!(model.engine.encoder().unwrap().compute(&alone).unwrap().row(0), row);
        assert!(row.len() <= model.info.row_values_max());
    }
    together.rows().map(<[f32]>::to_vec).collect()
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_sparse(name: &str) {
    assert_sparse_in(&data().join("tiny").join(name));
}

fn assert_sparse_in(folder: &Path) {
    let (mut model, rows) = open_folder(folder, ModelTask::EmbedSparse);
    assert_eq!(model.info.dim, 2000);
    let encode = |row: &Value| model.tokenizer.encode(row["text"].as_str().unwrap()).unwrap().ids;
    let ids: Vec<Vec<u32>> = rows.iter().map(encode).collect();
    let texts: Vec<_> = ids.iter().map(|ids| (InputType::Document, ids.as_slice())).collect();
    for (vector, row) in compute(&mut model, &texts).iter().zip(&rows) {
        let pairs = vector.chunks_exact(2);
        let indices: Vec<u32> = pairs.clone().map(|pair| pair[0] as u32).collect();
        let values: Vec<f32> = pairs.map(|pair| pair[1]).collect();
        let text = row["text"].as_str().unwrap();
        assert_eq!(indices, list::<u32>(&row["indices"]), "{text}");
        assert_close(&values, &list::<f32>(&row["values"]), text);
    }
}

#[test]
fn a_bert_gives_the_sparse_vectors_of_sentence_transformers() {
    assert_sparse("splade");
}

#[test]
fn a_distilbert_that_sums_gives_the_sparse_vectors_of_sentence_transformers() {
    assert_sparse("splade-distilbert");
}

#[test]
fn a_roberta_gives_the_sparse_vectors_of_sentence_transformers() {
    assert_sparse("splade-roberta");
}

/// Their classes are copies of `RoBERTa`'s in transformers, as the maker of that model makes sure.
#[test]
fn an_xlm_roberta_and_a_camembert_give_the_sparse_vectors_of_the_same_roberta() {
    for (kind, architecture) in
        [("xlm-roberta", "XLMRobertaForMaskedLM"), ("camembert", "CamembertForMaskedLM")]
    {
        let copy = copy_of("splade-roberta");
        edit_json(&copy.path().join("config.json"), |config| {
            config.insert("model_type".into(), kind.into());
            config.insert("architectures".into(), vec![architecture].into());
        });
        assert_sparse_in(copy.path());
    }
}

#[test]
fn a_modernbert_gives_the_sparse_vectors_of_sentence_transformers() {
    assert_sparse("splade-modernbert");
}

fn assert_tokens(name: &str) {
    let (mut model, rows) = open(name, ModelTask::EmbedTokens);
    assert_eq!(model.info.dim, 16);
    let mut expected = Vec::new();
    let mut ids = Vec::new();
    for row in &rows {
        let text = row["text"].as_str().unwrap();
        for (input_type, kind) in [(InputType::Query, "query"), (InputType::Document, "document")] {
            let tokens = model.tokenizer.of(input_type).encode(text).unwrap();
            assert_eq!(tokens.ids, list::<u32>(&row[format!("{kind}_ids")]), "{kind} {text}");
            ids.push((input_type, tokens.ids));
            expected.push((format!("{kind} {text}"), list::<Vec<f32>>(&row[kind])));
        }
    }
    let texts: Vec<_> = ids.iter().map(|(input_type, ids)| (*input_type, ids.as_slice())).collect();
    for (vectors, (what, expected)) in compute(&mut model, &texts).iter().zip(expected) {
        assert_eq!(vectors.len(), 16 * expected.len(), "{what}");
        for (vector, expected) in vectors.chunks_exact(16).zip(expected) {
            assert_close(vector, &expected, &what);
        }
    }
}

#[test]
fn a_bert_gives_the_token_vectors_of_sentence_transformers() {
    assert_tokens("colbert");
}

#[test]
fn a_modernbert_in_a_folder_of_pylate_gives_its_token_vectors() {
    assert_tokens("colbert-pylate");
}

#[test]
fn lengths_of_queries_and_documents_count_before_the_one_of_all_texts() {
    let copy = copy_of("colbert-pylate");
    let long = "word ".repeat(300);
    for (of_all, expected) in [(40, [24, 100]), (20, [24, 100]), (127, [24, 100])] {
        edit_json(&copy.path().join("sentence_bert_config.json"), |config| {
            config.insert("max_seq_length".into(), of_all.into());
        });
        let model = load_f32(copy.path());
        let lengths = [InputType::Query, InputType::Document]
            .map(|input_type| model.tokenizer.of(input_type).encode(&long).unwrap().ids.len());
        assert_eq!(lengths, expected, "max_seq_length {of_all}");
        assert_eq!(model.info.tokens_max, 100);
    }
    edit_json(&copy.path().join("config_sentence_transformers.json"), |config| {
        config.remove("document_length");
    });
    edit_json(&copy.path().join("sentence_bert_config.json"), |config| {
        config.insert("max_seq_length".into(), 40.into());
    });
    let model = load_f32(copy.path());
    assert_eq!(model.tokenizer.of(InputType::Document).encode(&long).unwrap().ids.len(), 40);
}

#[test]
fn a_field_of_the_configuration_is_ignored_only_where_the_head_takes_none() {
    for (name, effective) in [
        (
            "splade-modernbert",
            ["decoder_bias", "classifier_activation", "classifier_bias"].as_slice(),
        ),
        ("colbert-pylate", &[]),
        ("splade", &["hidden_act"]),
    ] {
        let ignored = load_f32(&data().join("tiny").join(name)).info.ignored;
        let unknown: Vec<_> = ignored.iter().filter(|it| !it.is_known).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let known: Vec<&str> = ignored.iter().map(|it| it.field.as_str()).collect();
        assert!(effective.iter().all(|field| !known.contains(field)), "{name}: {known:?}");
        assert!(name != "colbert-pylate" || known.contains(&"decoder_bias"), "{known:?}");
    }
}

#[test]
fn an_empty_sequence_has_an_empty_row_beside_others() {
    for (name, width) in [("splade", 2), ("colbert", 16)] {
        let mut model = load_f32(&data().join("tiny").join(name));
        let mut batch = PackedBatch::new();
        batch.push(&[], Finish::default());
        assert_eq!(model.engine.encoder().unwrap().compute(&batch).unwrap().row(0), [0.0; 0]);
        batch.push(&[2, 460, 3], Finish::default());
        let rows = model.engine.encoder().unwrap().compute(&batch).unwrap();
        assert!(rows.row(0).is_empty() && !rows.row(1).is_empty());
        assert!(rows.row(1).len().is_multiple_of(width));
    }
}

/// A copy of a small model with a text replaced in one of its files, and the error of loading it.
fn error_after_edit(name: &str, file: &str, from: &str, to: &str) -> EngineError {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&data().join("tiny").join(name), copy.path());
    let path = copy.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(&path, text.replace(from, to)).unwrap();
    load(copy.path(), &LoadOptions::default()).err().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (name, file, from, to, field) in [
        ("splade", "1_SpladePooling/config.json", "\"max\"", "\"mean\"", "pooling_strategy"),
        ("splade", "1_SpladePooling/config.json", "\"relu\"", "\"gelu\"", "activation_function"),
        ("splade", "modules.json", "transformer.Transformer", "router.Router", "type"),
        (
            "colbert",
            "1_Dense/config.json",
            "linear.Identity",
            "activation.Sigmoid",
            "activation_function",
        ),
        ("colbert", "2_MultiVectorMask/config.json", "null", "[7]", "keep_only_token_ids"),
        (
            "colbert",
            "modules.json",
            "normalize.Normalize",
            "token_pooling.HierarchicalTokenPooling",
            "type",
        ),
        (
            "colbert",
            "modules.json",
            "normalize.Normalize",
            "multi_vector_mask.MultiVectorMask",
            "type",
        ),
        (
            "colbert",
            "modules.json",
            "multi_vector_mask.MultiVectorMask",
            "normalize.Normalize",
            "module_input_name",
        ),
        (
            "colbert",
            "3_Normalize/config.json",
            "token_embeddings",
            "sentence_embedding",
            "module_input_name",
        ),
        (
            "colbert-pylate",
            "config_sentence_transformers.json",
            "ColBERT",
            "MultiVectorEncoder",
            "type",
        ),
        ("colbert", "sentence_bert_config.json", "\"fixed\"", "\"none\"", "query_expansion"),
        ("colbert-pylate", "config_sentence_transformers.json", "24", "40", "query_expansion"),
    ] {
        let error = error_after_edit(name, file, from, to);
        assert!(
            matches!(&error, EngineError::NotSupported { field: named, .. } if *named == field),
            "{name} {file}: {error}"
        );
    }
}

#[test]
fn a_gpu_is_refused_by_the_name_of_what_it_does_not_make() {
    for (name, made) in [("splade", "sparse vectors"), ("colbert", "token vectors")] {
        let cuda = LoadOptions { device: Device::Cuda(0), ..LoadOptions::default() };
        let error = load(&data().join("tiny").join(name), &cuda).err().unwrap().to_string();
        assert!(error.contains(made) && error.contains("--device cpu"), "{error}");
    }
}
