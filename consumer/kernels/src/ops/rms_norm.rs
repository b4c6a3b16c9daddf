//! `rms_norm` on rows, or on heads seen as rows.
//!
//! - formula: `y = x / sqrt(mean(x * x) + eps) * weight`
//! - shapes: `x`, `y`: `[rows, width]`; `weight`: `[width]`
//! - dtype: f32 or bf16; the weight and all that is in between are f32
//! - memory traffic: `x` and `y` once
//! - numerics: squares are summed in f32 over 32 lanes
//! - source: Zhang and Sennrich 2019

use candle_core::{DType, Tensor};

use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

pub(crate) const OP: &str = "rms_norm";

/// An `RMSNorm` over the last dimension. Families that multiply by `1 + weight` add the one when they load.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[width]`, multiplied; f32.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f32,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[rows, width]`
    pub(crate) x: &'a Tensor,
    /// As `x`; written.
    pub(crate) out: &'a Tensor,
}

impl RmsNorm {
    pub(crate) fn check(&self, Operands { x, out }: Operands<'_>) -> Result<(), KernelError> {
        let (rows, width, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        self.check_weight(OP, "weight", width)?;
        Operand { op: OP, name: "out", tensor: out }.expect(&[rows, width], dtype)?;
        share_no_memory(OP, out, &[("x", x)])
    }

    /// Refuses a weight that does not fit rows of `width` values, in the name of `op` and of its operand `name`.
    pub(crate) fn check_weight(
        &self,
        op: &'static str,
        name: &'static str,
        width: usize,
    ) -> Result<(), KernelError> {
        Operand { op, name, tensor: &self.weight }.expect(&[width], DType::F32)
    }

    /// `y` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(&self, x: &[f64]) -> Vec<f64> {
        let weight = super::operand::doubles(&self.weight);
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(weight.len()) {
            let mean = row.iter().map(|value| value * value).sum::<f64>() / row.len() as f64;
            let inverse = (mean + f64::from(self.eps)).sqrt().recip();
            y.extend(row.iter().zip(&weight).map(|(x, weight)| x * inverse * weight));
        }
        y
    }
}
