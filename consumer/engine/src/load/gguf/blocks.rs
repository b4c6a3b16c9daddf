//! Rows of quantised blocks, as they lie in a file.

use candle_core::{Device, Tensor};

use crate::error::EngineError;
use crate::load::gguf::dequantize::dequantize;
use crate::load::gguf::family::halves_apart;
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

impl Blocks {
    /// The matrix in f32.
    pub(crate) fn f32(&self) -> Result<Tensor, EngineError> {
        let values = dequantize(self.kind, &self.bytes);
        Ok(Tensor::from_vec(values, (self.outputs, self.inputs), &Device::Cpu)?)
    }

    /// Rows 0, 2, 4 and so on, and then rows 1, 3, 5 and so on. There is an even number of rows.
    pub(crate) fn rows_apart(self) -> Self {
        let row_bytes = self.inputs / self.kind.values() * self.kind.bytes();
        Self { bytes: halves_apart(&self.bytes, row_bytes, 1), ..self }
    }
}
