//! Rows of quantised blocks, as they lie in a file.

use crate::load::gguf::kind::Kind;

/// A matrix in quantised blocks: rows one after the other, each a whole number of blocks along the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The layout of a block.
    pub(crate) kind: Kind,
    /// Rows.
    pub(crate) outputs: usize,
    /// Values in a row.
    pub(crate) inputs: usize,
    /// The blocks, in the order of rows.
    pub(crate) bytes: Vec<u8>,
}
