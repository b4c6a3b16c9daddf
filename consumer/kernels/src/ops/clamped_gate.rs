//! `clamped_gate`: the middle of a gated feed-forward layer whose halves are kept within bounds.
//!
//! - formula: `g = min(x[:, ..inner], limit)`; `u = clamp(x[:, inner..], -limit, limit)`;
//!   `y = g * sigmoid(alpha * g) * (u + plus)`
//! - shapes: `x`: `[tokens, 2 * inner]`; `y`: `[tokens, inner]`
//! - dtype: f32 or bf16, computed in f32
//! - memory traffic: `x` and `y` once
//! - numerics: the sigmoid as of [`Activation`](crate::Activation); NaN stays NaN
//! - source: `OpenAI` 2025 (gpt-oss: alpha 1.702, limit 7, plus 1)

use candle_core::Tensor;

use super::gate;
use crate::error::KernelError;

pub(crate) const OP: &str = "clamped_gate";

/// One half of a row, bounded and activated, times the other, bounded and moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClampedGate {
    /// The sigmoid's factor, above zero.
    pub alpha: f32,
    /// The bound of both halves, above zero.
    pub limit: f32,
    /// Added to the second half.
    pub plus: f32,
}

impl ClampedGate {
    pub(crate) fn check(self, operands: gate::Operands<'_>) -> Result<(), KernelError> {
        for (name, value) in [("alpha", self.alpha), ("limit", self.limit)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(KernelError::Factor { op: OP, name, value });
            }
        }
        gate::check(OP, operands)
    }

    /// `y` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(self, x: &[f64], inner: usize) -> Vec<f64> {
        let [alpha, limit, plus] = [self.alpha, self.limit, self.plus].map(f64::from);
        let mut y = Vec::with_capacity(x.len() / 2);
        for row in x.chunks_exact(2 * inner) {
            let (gated, other) = row.split_at(inner);
            y.extend(gated.iter().zip(other).map(|(gated, other)| {
                let gated = gated.min(limit);
                gated / (1.0 + (-alpha * gated).exp()) * (other.clamp(-limit, limit) + plus)
            }));
        }
        y
    }
}

/// The tensors of one call: those of `gate`.
pub(crate) type Operands<'a> = gate::Operands<'a>;

/// The middle of a decoder's feed-forward layer, in either form.
#[derive(Debug, Clone, Copy)]
pub enum AnyGate {
    /// Unbounded.
    Plain(gate::Gate),
    /// Within bounds.
    Clamped(ClampedGate),
}

impl AnyGate {
    pub(crate) fn check(self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = gate::Operands { x, out };
        match self {
            Self::Plain(gate) => gate.check(operands),
            Self::Clamped(gate) => gate.check(operands),
        }
    }
}
