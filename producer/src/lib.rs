//! Fetching models into the cache folder, as a library: `forebay pull` and the fuzz targets use it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod pull;

/// Parsers of outside bytes, for the targets in `fuzz/` alone.
#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod fuzzing {
    pub use crate::pull::fuzzing::*;
}
