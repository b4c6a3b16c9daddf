//! Reads files of a model folder, with errors that name them.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::EngineError;

/// The file's bytes, or an error that names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    std::fs::read(path).map_err(|source| EngineError::File { path: path.to_owned(), source })
}

/// The file's bytes, if there is one.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EngineError::File { path: path.to_owned(), source }),
    }
}

/// Parses a JSON file; `path` names it in the error.
pub(crate) fn from_json<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(json)
        .map_err(|source| EngineError::Json { path: path.to_owned(), source })
}
