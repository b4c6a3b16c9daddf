//! The models that tests use.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::binaries::checkout;

/// Small, and fetched by `make model`.
pub const MODEL: &str = "all-minilm-l6-v2";

/// A model of a few hundred kilobytes with random weights.
pub const TINY: &str = "tiny";

/// The settings of a test's fleet besides its models: batches of one size on every machine, and no time spent on
/// finding it.
pub const SETTINGS: &str = "\n[worker]\nbatch_tokens_max = 4096\n";

/// The tiny model where a worker looks for it, beside a configuration that names it.
#[derive(Debug)]
pub struct TinyModel {
    /// The models folder.
    pub models: PathBuf,
}

impl TinyModel {
    /// Puts both into `folder`; `kind` is which of the engine's small models it is.
    pub fn prepare(folder: &Path, kind: &str) -> Self {
        let models = folder.join("models");
        let config = folder.join("forebay.toml");
        let files = small_model(kind);
        fs::create_dir(&models).unwrap();
        symlink(&files, models.join(TINY)).unwrap();
        let source = files.display();
        // Tests start their workers themselves, unless they say how an autoscaler is to.
        let model = format!("[models.{TINY}]\nsource = \"folder:{source}\"\n");
        fs::write(&config, format!("{model}pool.launcher = \"none\"\n{SETTINGS}")).unwrap();
        Self { models }
    }
}

/// The folder of one of the engine's small models.
pub fn small_model(kind: &str) -> PathBuf {
    checkout().join("consumer/engine/tests/data/tiny").join(kind)
}

/// Fails with the remedy when the weights are not where the services look for them.
pub fn require_weights() {
    let weights = models_folder().join(MODEL).join("model.safetensors");
    assert!(weights.exists(), "no weights at {}; run: make model", weights.display());
}

/// Where the services look for models.
pub fn models_folder() -> PathBuf {
    if let Some(folder) = env::var_os("FOREBAY_MODELS_DIR") {
        return folder.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or(home).expect("a home folder").join("forebay/models")
}
