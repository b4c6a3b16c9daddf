//! Events by which a pull reports its progress.

use std::time::Duration;

/// A step in the progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Another pull of this model is running; this one waits for it.
    Waiting,
    /// The transfer of a file has started.
    Started {
        /// Its path in the model's folder.
        file: &'a str,
        /// Its length in bytes, if that is known.
        bytes: Option<u64>,
    },
    /// Progress of the file started last.
    At {
        /// Bytes that are there, counted from the file's beginning, including those left by an earlier pull.
        bytes: u64,
    },
    /// A transfer was cut; it continues after a pause.
    Retrying {
        /// The error.
        reason: &'a str,
        /// The pause.
        after: Duration,
    },
    /// A file is complete and checked.
    Finished {
        /// Its path in the model's folder.
        file: &'a str,
        /// Its length in bytes.
        bytes: u64,
    },
}

/// The callback for the [`Event`]s of a pull.
pub type OnEvent<'a> = dyn FnMut(Event<'_>) + 'a;
