//! The reader of GGUFs, for the target in `fuzz/`.
#![allow(missing_docs)]

use std::path::Path;

use crate::load::gguf::GgufModel;
use crate::load::tensors::Tensors;

/// Reads everything that a file has: a refusal is as good as a model.
pub fn gguf(path: &Path) {
    let Ok(model) = GgufModel::open(path) else { return };
    let _ = (model.config(), model.generation());
    for (name, shape) in model.tensors() {
        let values = model.f32(name, shape);
        if let Ok(values) = values {
            assert_eq!(values.dims(), shape);
        }
        if let [outputs, inputs] = *shape {
            let _ = model.blocks(name, [outputs, inputs]);
        }
    }
    if let Ok(tokenizer) = model.tokenizer()
        && let Ok(tokens) = tokenizer.encode_fast("Water in 2 pools, é\n", true)
    {
        let _ = tokenizer.decode(tokens.get_ids(), false);
    }
}
