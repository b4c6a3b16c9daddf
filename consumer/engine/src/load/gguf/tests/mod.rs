//! Tests of the reader: files that GGUF's own library wrote, and files that are broken at one point.
#![allow(clippy::unwrap_used)]

mod fields;
mod real;
mod whole;
pub(crate) mod write;

use std::path::PathBuf;

/// A file under `tests/data/gguf`, which `tests/gguf-data.py` makes.
pub(crate) fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(name)
}

/// The file of SmolLM2-135M-Instruct, which is too large to keep beside the code.
pub(crate) fn smollm2() -> PathBuf {
    let env = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = || {
        let home = || env("HOME").unwrap().join(".cache");
        env("XDG_CACHE_HOME").unwrap_or_else(home).join("forebay/models")
    };
    let models = env("FOREBAY_MODELS_DIR").unwrap_or_else(cache);
    let file = models.join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    let remedy = "run: forebay pull smollm2-135m-instruct";
    assert!(file.is_file(), "no model at {}; {remedy}", file.display());
    file
}
