//! One field of a model's files is changed: the answer is the one that the libraries give, or the field is refused. The
//! references are made by `changed-fields.py` and `changed-modules.py` beside this file (transformers 5.24.0,
//! sentence-transformers 6.2.0).
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{
    assert_close, copy_of, data, edit_json, f32_options, load_f32, tiny_copy, tiny_folder,
};
use forebay_engine::{Finish, Model, ModelTask, PackedBatch, load};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

fn lines(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(data().join("changed").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn compute(model: &mut Model, ids: &[u32], first_len: usize) -> Vec<f32> {
    let mut batch = PackedBatch::new();
    batch.push_pair(ids, first_len, Finish::default());
    model.engine.encoder().unwrap().compute(&batch).unwrap().data
}

/// A change of a field, and what the library makes of it.
struct Change<'a> {
    model: &'a str,
    line: &'a Value,
    base: &'a Value,
    ids: Vec<u32>,
    first_len: usize,
    before: &'a Value,
}

impl Change<'_> {
    /// Whether the answer is right: why not.
    fn verdict(&self) -> Result<(), String> {
        let copy = copy_of(self.model);
        // The references are means, whatever the folder pools by.
        let _ = fs::remove_file(copy.path().join("modules.json"));
        let field = self.line["field"].as_str();
        edit_json(&copy.path().join("config.json"), |config| {
            for (name, value) in self.base.as_object().unwrap() {
                set(config, name, value);
            }
            if let Some(field) = field {
                let value =
                    if self.line["absent"] == true { &Value::Null } else { &self.line["value"] };
                config.insert(field.to_owned(), value.clone());
                if self.line["absent"] == true {
                    config.remove(field);
                }
            }
        });
        let same = self.line["same"] == true;
        let expected = if same { &self.before["values"] } else { &self.line["values"] };
        let mut model = match load(copy.path(), &f32_options()) {
            Ok(model) => model,
            Err(error) => {
                let named = error.to_string().contains(field.unwrap_or("no error"));
                // What the library can't load either may be refused in other words.
                return if named || expected.is_null() { Ok(()) } else { Err(error.to_string()) };
            }
        };
        if expected.is_null() {
            return Err("computed, where the library has no answer".to_owned());
        }
        let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
        let actual = compute(&mut model, &self.ids, self.first_len);
        let expected = match model.info.task {
            ModelTask::Classify => probabilities(&expected, self.line["value"].as_str()),
            _ => expected,
        };
        let far = actual.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if actual.len() == expected.len() && far < 1e-4 {
            return Ok(());
        }
        Err(format!("off by {far}, {} values for {}", actual.len(), expected.len()))
    }
}

fn set(config: &mut Map<String, Value>, name: &str, value: &Value) {
    if value.is_null() {
        config.remove(name);
    } else {
        config.insert(name.to_owned(), value.clone());
    }
}

/// The scores that `problem_type` makes of logits.
fn probabilities(logits: &[f32], problem_type: Option<&str>) -> Vec<f32> {
    match problem_type {
        Some("regression") => logits.to_vec(),
        Some("multi_label_classification") => {
            logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
        }
        _ => {
            let powers: Vec<f32> = logits.iter().map(|logit| logit.exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        }
    }
}

#[test]
fn each_changed_field_changes_the_answer_as_in_transformers_or_is_refused() {
    let lines = [lines("fields.jsonl"), lines("nomic.jsonl"), lines("own-code.jsonl")].concat();
    let mut wrong = Vec::new();
    let mut before = &Value::Null;
    for line in &lines {
        let model = line["model"].as_str().unwrap();
        // Nomic's model comes twice, with configurations of two kinds.
        let is_first = before["model"] != line["model"]
            || (!line["base"].is_null() && before["base"] != line["base"]);
        if is_first {
            before = line;
        }
        // A line without ids of its own has those of the model's first line.
        let of = if line["token_ids"].is_null() { before } else { line };
        let ids: Vec<u32> = serde_json::from_value(of["token_ids"].clone()).unwrap();
        let types: Vec<u32> = serde_json::from_value(of["type_ids"].clone()).unwrap_or_default();
        let first_len = types.iter().position(|&id| id == 1).unwrap_or(ids.len());
        let change = Change { model, line, base: &before["base"], ids, first_len, before };
        if let Err(problem) = change.verdict() {
            let value = if line["absent"] == true {
                "absent".to_owned()
            } else {
                line["value"].to_string()
            };
            wrong.push(format!("{model}: {} = {value}: {problem}", line["field"]));
        }
    }
    assert!(lines.len() > 300, "{} lines", lines.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn folders_of_sentence_transformers_give_its_vectors() {
    for line in lines("folders.jsonl") {
        let copy = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(tiny_folder().join(file), copy.path().join(file)).unwrap();
        }
        for (path, content) in line["files"].as_object().unwrap() {
            let path = copy.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.to_string()).unwrap();
        }
        let sizes: Option<[usize; 2]> = serde_json::from_value(line["dense"].clone()).unwrap();
        if let Some([inputs, outputs]) = sizes {
            write_dense(&copy.path().join("2_Dense"), inputs, outputs);
        }
        let mut model = load_f32(copy.path());
        let tokens = model.tokenizer.encode(line["text"].as_str().unwrap()).unwrap();
        let actual = compute(&mut model, &tokens.ids, tokens.first_len);
        let expected: Vec<f32> = serde_json::from_value(line["values"].clone()).unwrap();
        assert_close(&actual, &expected, &line["files"].to_string());
        assert_eq!(model.info.dim, expected.len());
        let cut = Finish { dimensions: Some(5), ..Finish::default() };
        let mut batch = PackedBatch::new();
        batch.push(&tokens.ids, cut);
        let row = model.engine.encoder().unwrap().compute(&batch).unwrap().data;
        let norm: f32 = row.iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-5 && row[5..].iter().all(|&value| value == 0.0));
    }
}

/// The linear layer of sines that the references were made with.
fn write_dense(folder: &Path, inputs: usize, outputs: usize) {
    let sines = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|at| (((at + 1) as f64).sin() as f32).to_le_bytes()).collect()
    };
    let weight = sines(inputs * outputs);
    let bias = sines(outputs);
    let tensors = [
        ("linear.weight", TensorView::new(Dtype::F32, vec![outputs, inputs], &weight).unwrap()),
        ("linear.bias", TensorView::new(Dtype::F32, vec![outputs], &bias).unwrap()),
    ];
    fs::write(folder.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap())
        .unwrap();
}

/// The vector of the small BERT after its weights were written in another way.
fn vector_after(rewrite: impl FnOnce(&Path, &SafeTensors<'_>)) -> Vec<f32> {
    let copy = tiny_copy();
    let path = copy.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    rewrite(copy.path(), &SafeTensors::deserialize(&bytes).unwrap());
    compute(&mut load_f32(copy.path()), &[2, 61, 62, 63, 3], 5)
}

fn vector() -> Vec<f32> {
    compute(&mut load_f32(&tiny_folder()), &[2, 61, 62, 63, 3], 5)
}

#[test]
fn norms_with_the_names_of_the_first_checkpoints_are_the_same_model() {
    let renamed = vector_after(|folder, weights| {
        let rename = |name: String| {
            let gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            format!("bert.{}", gamma.replace("LayerNorm.bias", "LayerNorm.beta"))
        };
        let tensors = weights.iter().map(|(name, view)| (rename(name.to_owned()), view));
        let bytes = safetensors::serialize(tensors, None).unwrap();
        fs::write(folder.join("model.safetensors"), bytes).unwrap();
    });
    assert_eq!(renamed, vector());
}

#[test]
fn weights_in_shards_are_the_same_model() {
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let write = |folder: &Path, weights: &SafeTensors<'_>| {
        let mut map = Map::new();
        for (index, shard) in shards.iter().enumerate() {
            let part = weights.iter().enumerate().filter(|(at, _)| at % 2 == index);
            let part: Vec<_> = part.map(|(_, tensor)| tensor).collect();
            map.extend(part.iter().map(|(name, _)| ((*name).to_owned(), json!(shard))));
            fs::write(folder.join(shard), safetensors::serialize(part, None).unwrap()).unwrap();
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    assert_eq!(vector_after(write), vector());
    let folder = tiny_copy();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    for name in ["../model.safetensors", "/etc/passwd", "a/b", "", ".."] {
        let index = json!({"weight_map": {"embeddings.LayerNorm.bias": name}});
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = load(folder.path(), &f32_options()).err().unwrap().to_string();
        assert!(error.contains("is not a file's name"), "{name:?}: {error}");
    }
}

#[test]
fn a_shard_that_is_missing_is_named() {
    let folder = tiny_copy();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let shard = "model-00001-of-00001.safetensors";
    let index = json!({"weight_map": {"embeddings.LayerNorm.bias": shard}});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let error = load(folder.path(), &f32_options()).err().unwrap().to_string();
    assert!(error.contains(shard), "{error}");
}

#[test]
fn pairs_have_types_only_where_the_tokenizer_gives_them() {
    let folder = copy_of("bert-rerank");
    let first_len = |config: Value| {
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = load_f32(folder.path()).tokenizer;
        let first = tokenizer.first_of_pairs("a web server").unwrap();
        let pair = tokenizer.encode_pair(&first, "written in rust").unwrap();
        (pair.first_len < pair.ids.len(), tokenizer.gives_types())
    };
    let names = |names: &[&str]| json!({"model_input_names": names});
    assert_eq!(first_len(json!({})), (true, true));
    assert_eq!(first_len(names(&["input_ids", "token_type_ids"])), (true, true));
    assert_eq!(first_len(names(&["input_ids", "attention_mask"])), (false, false));
    assert_eq!(first_len(json!({"tokenizer_class": "PreTrainedTokenizerFast"})), (false, false));
    assert_eq!(first_len(json!({"tokenizer_class": "BertTokenizer"})), (true, true));
}

#[test]
fn unknown_fields_are_reported_with_their_file() {
    let folder = tiny_copy();
    for file in ["config.json", "1_Pooling/config.json", "sentence_bert_config.json"] {
        edit_json(&folder.path().join(file), |config| {
            config.insert("rotary_twist".to_owned(), json!(2));
        });
    }
    let ignored = load_f32(folder.path()).info.ignored;
    let unknown: Vec<_> = ignored.iter().filter(|field| !field.is_known).collect();
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    assert!(unknown.iter().all(|field| field.field == "rotary_twist" && field.value == "2"));
}

#[test]
fn texts_are_lower_cased_as_sentence_transformers_6_does() {
    let folder = copy_of("roberta-classify");
    let ids = |lower_case: bool, text: &str| {
        let config = json!({"do_lower_case": lower_case});
        fs::write(folder.path().join("sentence_bert_config.json"), config.to_string()).unwrap();
        load_f32(folder.path()).tokenizer.encode(text).unwrap().ids
    };
    // Character by character: no final sigma.
    let text = "MIXED \u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}";
    let lower = "mixed \u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c3}";
    assert_eq!(ids(true, text), ids(false, lower));
    assert_ne!(ids(false, text), ids(false, lower));
}
