//! The models that tests use.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::binaries::checkout;

/// Small, and fetched by `make model`.
pub const MODEL: &str = "all-minilm-l6-v2";

/// A model of a few hundred kilobytes with random weights.
pub const TINY: &str = "tiny";

/// A decoder of a few hundred kilobytes with random weights, which generates text beside another model.
pub const DECODER: &str = "tiny-decoder";

/// Which of the engine's small models that is. Prompt and output have 512 tokens at most.
const DECODER_KIND: &str = "smollm2";

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

    /// Puts the decoder beside it, into the same folder and the same configuration.
    pub fn put_decoder_beside(&self, folder: &Path) {
        let files = small_model(DECODER_KIND);
        symlink(&files, self.models.join(DECODER)).unwrap();
        let config = folder.join("forebay.toml");
        let before = fs::read_to_string(&config).unwrap();
        let source = files.display();
        let model = format!("[models.{DECODER}]\nsource = \"folder:{source}\"\n");
        fs::write(&config, format!("{before}\n{model}pool.launcher = \"none\"\n")).unwrap();
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
