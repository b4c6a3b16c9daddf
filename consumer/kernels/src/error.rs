//! What a fused operation refuses, and why.

use candle_core::DType;

/// An error of a fused operation. Nothing was computed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An operand has a shape that does not fit the others.
    #[error("{op}: {operand} has shape {actual:?}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// An operand has a number type that the operation does not compute in, or not with the others'.
    #[error("{op}: {operand} is {actual:?}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// Its number type.
        actual: DType,
        /// What would do.
        expected: &'static str,
    },
    /// An operand is a strided view.
    #[error("{op}: {operand} is not contiguous; call `contiguous()` on it first")]
    NotContiguous {
        /// The operation.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
    },
    /// Sequence offsets that do not begin at zero or that go backwards.
    #[error("cu_seqlens must begin at 0 and never decrease; offset {index} is {value}")]
    CuSeqlens {
        /// The first offset that is wrong.
        index: usize,
        /// Its value.
        value: usize,
    },
    /// An index that its table has no row for.
    #[error("{op}: {what} {value} is outside a table of {rows} rows")]
    OutsideTable {
        /// The operation.
        op: &'static str,
        /// What the index is: a token id, a position or a type id.
        what: &'static str,
        /// The index.
        value: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// More dimensions asked of a vector than it has, or none.
    #[error(
        "sequence {sequence}: {dimensions} dimensions asked of vectors of {hidden}; ask for 1 to {hidden}"
    )]
    Dimensions {
        /// Which sequence.
        sequence: usize,
        /// What was asked.
        dimensions: usize,
        /// What there is.
        hidden: usize,
    },
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
