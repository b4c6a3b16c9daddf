//! Why a configuration can't be used.

use std::{io, path::PathBuf};

use super::route_error::RouteError;
use crate::tls::TlsError;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}; name another with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the file is wrong.
    #[error("{path}:{line}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The mistake and its remedy.
        message: String,
    },
    /// A variable is wrong.
    #[error("the environment variable {name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// The mistake and its remedy.
        message: String,
    },
    /// A value of the file or of a variable is out of its range.
    #[error("configuration: {0}")]
    Range(String),
    /// A route can't be used.
    #[error("configuration: {0}")]
    Route(#[from] RouteError),
    /// A folder is not named, and this user has none of its own for it.
    #[error(
        "`{key}` is not set, and this user has neither {variable} nor HOME (an absolute path); set `{key}` to a folder \
         that no other user may write to"
    )]
    NoFolder {
        /// The key that names it.
        key: &'static str,
        /// The variable that its default is made of.
        variable: &'static str,
    },
    /// A file that `[tls]` names can't be used.
    #[error("configuration: {0}")]
    Tls(#[from] TlsError),
}
