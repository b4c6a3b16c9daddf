//! One field of a model of sparse or token vectors is changed, or one of a model that comes with code of its own: the
//! answer is the libraries', or the field is refused. The references are made by `changed-modules.py` beside this file
//! (transformers 5.24.0, sentence-transformers 6.2.0).
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{copy_of, data, edit_json, f32_options, tiny_folder};
use forebay_engine::{Finish, InputType, Model, PackedBatch, SPARSE_VALUES_MAX, load};
use safetensors::SafeTensors;
use serde_json::Value;

fn lines(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(data().join("changed").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts the parts of a model together as Stanford's library does.
fn to_stanfords(folder: &Path) {
    let [encoder, dense] = ["", "1_Dense"].map(|part| folder.join(part).join("model.safetensors"));
    let [encoder_bytes, dense_bytes] = [&encoder, &dense].map(|path| fs::read(path).unwrap());
    let [of_encoder, of_dense] =
        [&encoder_bytes, &dense_bytes].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let renamed = of_encoder.iter().map(|(name, view)| (format!("bert.{name}"), view));
    let tensors = renamed.chain(of_dense.iter().map(|(name, view)| (name.to_owned(), view)));
    let bytes = safetensors::serialize(tensors, None).unwrap();
    fs::write(&encoder, bytes).unwrap();
    for part in ["1_Dense", "2_MultiVectorMask", "3_Normalize"] {
        fs::remove_dir_all(folder.join(part)).unwrap();
    }
    for file in ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
}

/// The changed folder of a line.
fn changed(line: &Value) -> tempfile::TempDir {
    let copy = copy_of(line["model"].as_str().unwrap());
    if line["stanford"] == true {
        to_stanfords(copy.path());
    }
    for (file, fields) in line["with"].as_object().into_iter().flatten() {
        edit_json(&copy.path().join(file), |json| json.extend(fields.as_object().unwrap().clone()));
    }
    if let Some(file) = line["file"].as_str() {
        let field = line["field"].as_str().unwrap();
        edit_json(&copy.path().join(file), |json| {
            if line["absent"] == true {
                json.remove(field).unwrap();
            } else {
                json.insert(field.to_owned(), line["value"].clone());
            }
        });
    }
    copy
}

fn row(model: &mut Model, input_type: InputType, text: &str) -> Vec<f32> {
    let tokens = model.tokenizer.of(input_type).encode(text).unwrap();
    let mut batch = PackedBatch::new();
    batch.push_as(input_type, &tokens.ids, tokens.first_len, Finish::default());
    model.engine.encoder().unwrap().compute(&batch).unwrap().data
}

fn near(actual: f32, expected: &Value) -> bool {
    (f64::from(actual) - expected.as_f64().unwrap()).abs() < 1e-4
}

/// Whether a sparse vector is the expected one.
fn is_sparse_vector(row: &[f32], dim: usize, expected: &Value) -> bool {
    let mut pairs: Vec<_> = row.chunks_exact(2).map(|pair| (pair[0] as u64, pair[1])).collect();
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
    let largest = expected["largest"].as_array().unwrap();
    let value = |of: u64| pairs.iter().find(|(index, _)| *index == of).map_or(0.0, |pair| pair.1);
    let is_near = |pair: &Value| near(value(pair[0].as_u64().unwrap()), &pair[1]);
    let count = expected["count"].as_u64().unwrap().min(SPARSE_VALUES_MAX as u64);
    expected["dim"] == dim && count == pairs.len() as u64 && largest.iter().all(is_near)
}

/// Whether token vectors are the expected ones.
fn are_token_vectors(row: &[f32], dim: usize, expected: &Value) -> bool {
    let vectors: Vec<&[f32]> = row.chunks_exact(dim).collect();
    if expected["count"] != vectors.len() {
        return false;
    }
    let mean = |at: usize| vectors.iter().map(|it| it[at]).sum::<f32>() / vectors.len() as f32;
    let mean: Vec<f32> = (0..dim).map(mean).collect();
    let these = [vectors[0], vectors[vectors.len() - 1], &mean];
    these.iter().zip(expected["vectors"].as_array().unwrap()).all(|(actual, expected)| {
        let expected = expected.as_array().unwrap();
        actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, b)| near(*a, b))
    })
}

/// Whether the answer is right: why not.
fn verdict(line: &Value) -> Result<(), String> {
    let copy = changed(line);
    let has_answer = !line["sparse"].is_null() || !line["query"].is_null();
    let field = line["field"].as_str().unwrap_or("no error");
    let mut model = match load(copy.path(), &f32_options()) {
        Ok(model) => model,
        // What the library can't load either may be refused in other words.
        Err(error) if !has_answer || error.to_string().contains(field) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !has_answer {
        return Err("computed, where the library has no answer".to_owned());
    }
    let text = line["text"].as_str().unwrap();
    let dim = model.info.dim;
    if !line["sparse"].is_null() {
        let row = row(&mut model, InputType::Document, text);
        return if is_sparse_vector(&row, dim, &line["sparse"]) {
            Ok(())
        } else {
            Err(format!("another sparse vector of {} values", row.len() / 2))
        };
    }
    for (name, input_type) in [("query", InputType::Query), ("document", InputType::Document)] {
        let row = row(&mut model, input_type, text);
        if !are_token_vectors(&row, dim, &line[name]) {
            let expected = &line[name]["count"];
            return Err(format!("{} other vectors of a {name} for {expected}", row.len() / dim));
        }
    }
    Ok(())
}

#[test]
fn a_changed_field_of_modules_changes_the_answer_as_in_sentence_transformers_or_is_refused() {
    let lines = lines("modules.jsonl");
    let mut wrong = Vec::new();
    for line in &lines {
        if let Err(problem) = verdict(line) {
            let [model, file, field] = ["model", "file", "field"].map(|name| &line[name]);
            let value =
                if line["absent"] == true { "absent".into() } else { line["value"].clone() };
            wrong.push(format!("{model} {file}: {field} = {value}: {problem}"));
        }
    }
    assert!(lines.len() > 150, "{} lines", lines.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn folders_of_stanford_without_their_projection_are_refused_by_its_name() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tiny_folder().join(file), copy.path().join(file)).unwrap();
    }
    edit_json(&copy.path().join("config.json"), |config| {
        config.insert("architectures".into(), vec!["HF_ColBERT"].into());
    });
    let error = load(copy.path(), &f32_options()).err().unwrap().to_string();
    assert!(error.contains("linear.weight"), "{error}");
}
