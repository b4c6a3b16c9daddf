//! `layer_norm` on rows.
//!
//! - formula: `y = (x - mean) / sqrt(variance + eps) * scale + shift`
//! - shapes: `x`, `y`: `[tokens, hidden]`; `scale`, `shift`: `[hidden]`
//! - dtype: f32 or bf16 (on a GPU bf16 or f16); parameters and all that is in between are f32
//! - memory traffic: `x` and `y` once
//! - numerics: the variance is the mean square distance to the mean, taken in a second pass (no cancellation) over
//!   a row that is still in L1 cache or in registers; sums in f32, on the processor over 32 lanes
//! - source: Ba et al. 2016

use candle_core::{DType, Tensor};

use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "layer_norm";

/// A LayerNorm over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[hidden]`, multiplied; f32.
    pub scale: Tensor,
    /// `[hidden]`, added; f32.
    pub shift: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    /// As `x`; written.
    pub(crate) out: &'a Tensor,
}

impl LayerNorm {
    pub(crate) fn check(&self, Operands { x, out }: Operands<'_>) -> Result<(), KernelError> {
        let (tokens, hidden, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        self.check_parameters(OP, hidden)?;
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, hidden], dtype)?;
        share_no_memory(OP, out, &[("x", x)])
    }

    /// Refuses parameters that do not fit rows of `hidden` values, in the name of `op`.
    pub(crate) fn check_parameters(
        &self,
        op: &'static str,
        hidden: usize,
    ) -> Result<(), KernelError> {
        Operand { op, name: "scale", tensor: &self.scale }.expect(&[hidden], DType::F32)?;
        Operand { op, name: "shift", tensor: &self.shift }.expect(&[hidden], DType::F32)
    }

    /// `y` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(&self, x: &[f64]) -> Vec<f64> {
        let scale = super::operand::doubles(&self.scale);
        let shift = super::operand::doubles(&self.shift);
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(scale.len()) {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            let inverse = (variance + f64::from(self.eps)).sqrt().recip();
            let parameters = scale.iter().zip(&shift);
            y.extend(row.iter().zip(parameters).map(|(x, (a, b))| (x - mean) * inverse * a + b));
        }
        y
    }
}
