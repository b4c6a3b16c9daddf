//! The errors of the simulator.

use std::{io, path::PathBuf};

use super::trace::TraceError;

/// Why a simulation can't be run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A trace that can't be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A number out of range, or options that exclude each other.
    #[error("{0}")]
    Option(String),
    /// A plot that can't be written.
    #[error("{}: {source}; give a file in a folder that is there and can be written", file.display())]
    Plot {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Standard output is gone.
    #[error("printing: {0}")]
    Print(#[from] io::Error),
}
