//! `gate`: the middle of a gated feed-forward layer (`GeGLU`, `SwiGLU`).
//!
//! - formula: `y = activation(x[:, ..inner]) * x[:, inner..]`
//! - shapes: `x`: `[tokens, 2 * inner]`; `y`: `[tokens, inner]`
//! - dtype: f32 or bf16 (on a GPU bf16 or f16), computed in f32
//! - memory traffic: `x` and `y` once
//! - numerics: as [`Activation`] states
//! - source: Shazeer 2020

use candle_core::Tensor;

use super::activation::Activation;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "gate";

/// One half of a row, activated, times the other.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// Applied to the first half.
    pub activation: Activation,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, 2 * inner]`
    pub(crate) x: &'a Tensor,
    /// `[tokens, inner]`; written.
    pub(crate) out: &'a Tensor,
}

impl Gate {
    #[allow(clippy::unused_self)] // as of the other operations
    pub(crate) fn check(self, operands: Operands<'_>) -> Result<(), KernelError> {
        check(OP, operands)
    }

    /// `y` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(self, x: &[f64], inner: usize) -> Vec<f64> {
        let mut y = Vec::with_capacity(x.len() / 2);
        for row in x.chunks_exact(2 * inner) {
            let (gated, other) = row.split_at(inner);
            let pairs = gated.iter().zip(other);
            y.extend(pairs.map(|(gated, other)| self.activation.reference(*gated) * other));
        }
        y
    }
}

/// The checks of any operation that makes one half of two.
pub(crate) fn check(
    op: &'static str,
    Operands { x, out }: Operands<'_>,
) -> Result<(), KernelError> {
    let operand = Operand { op, name: "x", tensor: x };
    let (tokens, width, dtype) = operand.matrix()?;
    if !width.is_multiple_of(2) {
        return Err(operand.shape_error("rows of two halves".to_owned()));
    }
    Operand { op, name: "out", tensor: out }.expect(&[tokens, width / 2], dtype)?;
    share_no_memory(op, out, &[("x", x)])
}
