//! LayerNorm on rows: the part that `embed_layer_norm` and `add_layer_norm` share.
//!
//! `y = (x - mean) / sqrt(variance + eps) * scale + shift`, the variance being the mean square distance to
//! the mean, taken in a second pass over a row that is still in the first cache (no cancellation).

use candle_core::Tensor;

use crate::KernelError;
use crate::math::{sum, sum_of_squares};
use crate::operand::Operand;
use crate::simd::Target;

/// The parameters of a LayerNorm over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[hidden]`, multiplied.
    pub scale: Tensor,
    /// `[hidden]`, added.
    pub shift: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    pub(crate) fn check(&self, op: &'static str, hidden: usize) -> Result<(), KernelError> {
        Operand { op, name: "scale", tensor: &self.scale }.expect(&[hidden])?;
        Operand { op, name: "shift", tensor: &self.shift }.expect(&[hidden])
    }
}

/// A LayerNorm's parameters as values.
#[derive(Clone, Copy)]
pub(crate) struct NormRow<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) eps: f32,
}

/// Normalises a row in place.
#[inline(always)]
pub(crate) fn normalize_row<T: Target>(row: &mut [f32], norm: NormRow<'_>) {
    let width = row.len() as f32;
    let mean = sum(row) / width;
    let variance = sum_of_squares::<T>(row, mean) / width;
    let inverse = 1.0 / (variance + norm.eps).sqrt();
    for ((value, scale), shift) in row.iter_mut().zip(norm.scale).zip(norm.shift) {
        *value = T::mul_add((*value - mean) * inverse, *scale, *shift);
    }
}

/// Rows a task: enough tasks for the threads to even out, none so small that handing it over costs more.
pub(crate) fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads()).max(8)
}
