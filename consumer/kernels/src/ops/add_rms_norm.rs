//! `add_rms_norm`: residual and `RMSNorm`, between the halves of a decoder layer.
//!
//! - formula: `sum = sum + x`, then `y = RMSNorm(sum)`
//! - shapes: `x`, `sum`, `y`: `[tokens, hidden]`; `weight`: `[hidden]`
//! - dtype: f32 or bf16; the weight and all that is in between are f32
//! - memory traffic: `x` and `y` once, `sum` once each way
//! - numerics: as `rms_norm`; the sum is normalised as it was rounded
//! - source: Zhang and Sennrich 2019 (`RMSNorm`); Xiong et al. 2020 (norm before each half)

use candle_core::Tensor;

use super::operand::{Operand, share_no_memory};
use super::rms_norm::RmsNorm;
use crate::error::KernelError;

pub(crate) const OP: &str = "add_rms_norm";

/// Residual and `RMSNorm` in one pass; the sum is kept as the next residual.
#[derive(Debug, Clone)]
pub struct AddRmsNorm {
    /// The normalisation.
    pub norm: RmsNorm,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    /// As `x`: the residual; becomes the sum.
    pub(crate) sum: &'a Tensor,
    /// As `x`; written.
    pub(crate) out: &'a Tensor,
}

impl AddRmsNorm {
    pub(crate) fn check(&self, Operands { x, sum, out }: Operands<'_>) -> Result<(), KernelError> {
        let (tokens, hidden, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        for (name, tensor) in [("sum", sum), ("out", out)] {
            Operand { op: OP, name, tensor }.expect(&[tokens, hidden], dtype)?;
        }
        self.norm.check_weight(OP, "weight", hidden)?;
        share_no_memory(OP, out, &[("x", x), ("sum", sum)])?;
        share_no_memory(OP, sum, &[("x", x)])
    }
}
