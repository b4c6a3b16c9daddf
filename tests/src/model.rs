//! The model that every test uses.

use std::env;
use std::path::PathBuf;

/// Small, and fetched by `make model`.
pub const MODEL: &str = "all-minilm-l6-v2";

/// Fails with the remedy when the weights are not where the services look for them.
pub fn require_weights() {
    let weights = models_folder().join(MODEL).join("model.safetensors");
    assert!(weights.exists(), "no weights at {}; run: make model", weights.display());
}

fn models_folder() -> PathBuf {
    if let Some(folder) = env::var_os("FOREBAY_MODELS_DIR") {
        return folder.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or(home).expect("a home folder").join("forebay/models")
}
