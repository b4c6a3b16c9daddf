//! Shared by the engine's tests: model folders, expected rows and how close is close.
// Each test file uses some of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use forebay_engine::{DType, Finish, LoadOptions, Model, PackedBatch, load};
use serde_json::Value;

/// A text with the token ids and the vector that `PyTorch` computed for it.
pub struct Row {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub embedding: Vec<f32>,
}

/// Rows of a file under `tests/data`; `field` names the vector.
pub fn rows(file: &str, field: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(data().join(file)).unwrap();
    let row = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        Row {
            text: value["text"].as_str().unwrap().to_owned(),
            token_ids: serde_json::from_value(value["token_ids"].take()).unwrap(),
            embedding: serde_json::from_value(value[field].take()).unwrap(),
        }
    };
    text.lines().map(row).collect()
}

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The folder of the small random BERT, mean-pooled.
pub fn tiny_folder() -> PathBuf {
    data().join("tiny/bert")
}

/// A copy of the small BERT that a test may break.
pub fn tiny_copy() -> tempfile::TempDir {
    copy_of("bert")
}

/// A copy of one of the small models.
pub fn copy_of(model: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&data().join("tiny").join(model), copy.path());
    copy
}

/// Rewrites a JSON object of a model.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    edit(json.as_object_mut().unwrap());
    std::fs::write(path, json.to_string()).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The folder of all-MiniLM-L6-v2, which is too large to keep beside the code.
pub fn minilm_folder() -> PathBuf {
    let folder = models_dir().join("all-minilm-l6-v2");
    assert!(
        folder.join("model.safetensors").is_file(),
        "no model in {}; run: make model",
        folder.display()
    );
    folder
}

/// The folder of models that are too large to keep beside the code.
pub fn models_dir() -> PathBuf {
    std::env::var_os("FOREBAY_MODELS_DIR").map_or_else(cached_models, PathBuf::from)
}

fn cached_models() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    cache.join("forebay/models")
}

/// Options for f32, also where the processor's default is another type.
pub fn f32_options() -> LoadOptions {
    LoadOptions { dtype: Some(DType::F32), ..LoadOptions::default() }
}

pub fn load_f32(folder: &Path) -> Model {
    load(folder, &f32_options()).unwrap()
}

/// Vectors of these sequences, computed in one batch with the default finish.
pub fn embed<'a>(
    model: &mut Model,
    sequences: impl IntoIterator<Item = &'a [u32]>,
) -> Vec<Vec<f32>> {
    let mut batch = PackedBatch::new();
    for ids in sequences {
        batch.push(ids, Finish::default());
    }
    model.engine.encoder().unwrap().compute(&batch).unwrap().rows().map(<[f32]>::to_vec).collect()
}

/// Cosine at least 0.99999 and no value off by more than 1e-5.
pub fn assert_close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what:?}");
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosine = dot(actual, expected) / (dot(actual, actual) * dot(expected, expected)).sqrt();
    let distance = actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        cosine >= 0.99999 && distance <= 1e-5,
        "{what:?}: cosine {cosine}, largest difference {distance}"
    );
}
