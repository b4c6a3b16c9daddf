//! Parses `config.json`, and refuses by name a setting that cannot be honoured.

use std::path::Path;

use forebay_kernels::Activation;
use serde::de::DeserializeOwned;

use crate::error::EngineError;

/// Parses a JSON file of the model folder; `path` names it in the error.
pub(crate) fn from_json<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(json)
        .map_err(|source| EngineError::Json { path: path.to_owned(), source })
}

/// Refuses a value that is not the one that is supported.
pub(crate) fn expect(
    path: &Path,
    field: &'static str,
    value: &str,
    supported: &'static str,
) -> Result<(), EngineError> {
    if value == supported {
        return Ok(());
    }
    Err(EngineError::NotSupported {
        path: path.to_owned(),
        field,
        value: value.to_owned(),
        supported,
    })
}

/// An activation by its name in transformers.
pub(crate) fn activation(
    path: &Path,
    field: &'static str,
    name: &str,
) -> Result<Activation, EngineError> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        _ => Err(EngineError::NotSupported {
            path: path.to_owned(),
            field,
            value: name.to_owned(),
            supported: "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh",
        }),
    }
}
