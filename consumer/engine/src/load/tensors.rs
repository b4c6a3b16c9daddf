//! Weights by the names that transformers gives them, whatever format a file has.

use candle_core::Tensor;

use crate::error::EngineError;
use crate::load::gguf::blocks::Blocks;

/// A model's weights, in a file of any format.
pub(crate) trait Tensors {
    /// True when there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;

    /// The tensor in f32, on the processor; of another shape it is refused.
    fn f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError>;

    /// A matrix `[outputs, inputs]` in the blocks that it is stored in; `None` where the file has plain numbers.
    fn blocks(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<Blocks>, EngineError> {
        Ok(None)
    }

    /// Entry `index` along the first dimension of a tensor of this shape, in f32. Nothing else of it is read.
    fn f32_entry(&self, name: &str, shape: &[usize], index: usize) -> Result<Tensor, EngineError>;

    /// Matrix `index` of a stack of them, `[matrices, outputs, inputs]`, in the blocks that it is stored in; `None`
    /// where the file has plain numbers. Nothing else of the stack is read.
    fn blocks_entry(
        &self,
        _name: &str,
        _stack: [usize; 3],
        _index: usize,
    ) -> Result<Option<Blocks>, EngineError> {
        Ok(None)
    }

    /// Whether the matrices of a stack are in blocks.
    fn is_in_blocks(&self, _name: &str) -> bool {
        false
    }

    /// True when some matrices are in blocks.
    fn has_blocks(&self) -> bool {
        false
    }

    /// The number types that tensors are stored in.
    fn dtypes(&self) -> Vec<String>;
}
