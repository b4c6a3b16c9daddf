//! Errors of operations: operands that are refused, and failures of the tensor library.

use candle_core::DType;

/// An error of a fused operation. Nothing was computed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An operand has a shape that does not fit the others.
    #[error("{op}: {operand} has shape {actual:?}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// A shape that fits.
        expected: String,
    },
    /// An operand has a number type that the operation does not compute in, or not with the others'.
    #[error("{op}: {operand} is {actual:?}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its number type.
        actual: DType,
        /// Number types that fit.
        expected: &'static str,
    },
    /// An operand is a strided view.
    #[error("{op}: {operand} is not contiguous; call `contiguous()` on it first")]
    NotContiguous {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
    },
    /// The output's memory is that of an operand that is read.
    #[error("{op}: the output shares the memory of {operand}; give it memory of its own")]
    SharedMemory {
        /// The operation.
        op: &'static str,
        /// The operand's name.
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
        /// The kind of index: a token id, a position or a type id.
        what: &'static str,
        /// The index.
        value: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// A factor that is not a finite number above zero.
    #[error("{op}: {name} is {value}, expected a finite number above zero")]
    Factor {
        /// The operation.
        op: &'static str,
        /// The factor's name.
        name: &'static str,
        /// Its value.
        value: f32,
    },
    /// A page table that ends before the sequence's new tokens do.
    #[error(
        "sequence {sequence}: {tokens} tokens from position {position} on need more than the {pages} pages of its table"
    )]
    PageTable {
        /// The sequence's index in the step.
        sequence: usize,
        /// Pages of its table.
        pages: usize,
        /// The position of its first new token.
        position: usize,
        /// New tokens.
        tokens: usize,
    },
    /// A page that two sequences of a step would write to.
    #[error("page {page} would be written twice in one step; give each sequence a page of its own")]
    SharedPage {
        /// The page.
        page: usize,
    },
    /// An operation that the operands' device has no back-end for.
    #[error("{op}: decoders run on the processor, and have no operations on {device} yet")]
    NoBackend {
        /// The operation.
        op: &'static str,
        /// The kind of device.
        device: &'static str,
    },
    /// More dimensions asked of a vector than it has, or none.
    #[error(
        "sequence {sequence}: {dimensions} dimensions asked of vectors of {hidden}; ask for 1 to {hidden}"
    )]
    Dimensions {
        /// The sequence's index.
        sequence: usize,
        /// The number asked for.
        dimensions: usize,
        /// The number there is.
        hidden: usize,
    },
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
