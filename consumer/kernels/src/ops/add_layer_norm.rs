//! `add_layer_norm`: bias, residual and LayerNorm, which close each half of an encoder layer.
//!
//! - formula: `y = LayerNorm(x + bias + residual)`; of layers that normalise first, `sum = sum + x + bias` and `y =
//!   LayerNorm(sum)`
//! - shapes: `x`, `residual`, `sum`, `y`: `[tokens, hidden]`; `bias`, `scale`, `shift`: `[hidden]`
//! - dtype: f32 or bf16 (on a GPU bf16 or f16); parameters and all that is in between are f32
//! - memory traffic: each operand once; where the sum is kept it is read once more on the processor
//! - numerics: as `layer_norm`; a sum that is kept is normalised as it was rounded
//! - source: Vaswani et al. 2017 (post-norm residual); Ba et al. 2016 (LayerNorm)

use candle_core::{DType, Tensor};

use super::layer_norm::LayerNorm;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "add_layer_norm";

/// Bias, residual and LayerNorm in one pass.
#[derive(Debug, Clone)]
pub struct AddLayerNorm {
    /// `[hidden]`: the bias of the linear layer whose result is `x`; f32.
    pub bias: Option<Tensor>,
    /// The normalisation.
    pub norm: LayerNorm,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    /// The tensor that `x` and the bias are added to.
    pub(crate) sum: Sum<'a>,
    /// As `x`; written.
    pub(crate) out: &'a Tensor,
}

/// The tensor that is added to `x`, of its shape, and whether the sum is wanted beside its norm.
#[derive(Clone, Copy)]
pub(crate) enum Sum<'a> {
    /// The residual is only read.
    Discarded { residual: &'a Tensor },
    /// The residual becomes the sum.
    Kept { sum: &'a Tensor },
}

impl<'a> Sum<'a> {
    fn named(self) -> (&'static str, &'a Tensor) {
        match self {
            Self::Discarded { residual } => ("residual", residual),
            Self::Kept { sum } => ("sum", sum),
        }
    }
}

impl AddLayerNorm {
    pub(crate) fn check(&self, Operands { x, sum, out }: Operands<'_>) -> Result<(), KernelError> {
        let (tokens, hidden, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let addend = sum.named();
        for (name, tensor) in [addend, ("out", out)] {
            Operand { op: OP, name, tensor }.expect(&[tokens, hidden], dtype)?;
        }
        if let Some(bias) = &self.bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[hidden], DType::F32)?;
        }
        self.norm.check_parameters(OP, hidden)?;
        share_no_memory(OP, out, &[("x", x), addend])?;
        match sum {
            Sum::Discarded { .. } => Ok(()),
            Sum::Kept { sum } => share_no_memory(OP, sum, &[("x", x)]),
        }
    }

    /// `x + bias + residual` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference_sum(&self, x: &[f64], residual: &[f64]) -> Vec<f64> {
        let hidden = self.norm.scale.elem_count();
        let bias = self.bias.as_ref().map_or(vec![0.0; hidden], super::operand::doubles);
        let addends = residual.iter().zip(bias.iter().cycle());
        x.iter().zip(addends).map(|(x, (residual, bias))| x + residual + bias).collect()
    }

    /// `y` in float64, of rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(&self, x: &[f64], residual: &[f64]) -> Vec<f64> {
        self.norm.reference(&self.reference_sum(x, residual))
    }
}
