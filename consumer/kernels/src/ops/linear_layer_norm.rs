//! `linear_layer_norm`: the linear layer that closes half of an encoder layer, and the `add_layer_norm` after it. On
//! the processor one after the other; on a GPU one kernel that keeps whole rows in registers, where there is one for
//! the sizes and it is measured to be faster.
//!
//! - formula: `y = LayerNorm(x * transpose(weight) + bias + residual)`
//! - shapes: `x`: `[tokens, in]`; `weight`: `[hidden, in]`; `residual`, `y`: `[tokens, hidden]`
//! - dtype: as `linear` and `add_layer_norm`
//! - memory traffic: in one kernel `x`, the residual, the weight and `y` once each; apart as `linear` and
//!   `add_layer_norm`
//! - numerics: in one kernel the matrix product is normalised before it is rounded
//! - source: Dao et al. 2022 for results that never leave a block

use candle_core::Tensor;

use super::add_layer_norm::{self, AddLayerNorm, Sum};
use super::linear::{self, Linear};
use crate::error::KernelError;

/// A linear layer, and the norm that follows it. The linear layer has no bias of its own: the norm has.
#[derive(Debug, Clone)]
pub struct LinearLayerNorm {
    /// `[hidden, in]`
    pub linear: Linear,
    /// Bias, residual and LayerNorm.
    pub norm: AddLayerNorm,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, in]`
    pub(crate) x: &'a Tensor,
    /// `[tokens, hidden]`
    pub(crate) residual: &'a Tensor,
    /// `[tokens, hidden]`: scratch memory for the linear layer's result.
    pub(crate) projected: &'a Tensor,
    /// `[tokens, hidden]`; written.
    pub(crate) out: &'a Tensor,
}

impl LinearLayerNorm {
    pub(crate) fn check(
        &self,
        Operands { x, residual, projected, out }: Operands<'_>,
    ) -> Result<(), KernelError> {
        self.linear.check(linear::Operands { x, out: projected })?;
        let sum = Sum::Discarded { residual };
        self.norm.check(add_layer_norm::Operands { x: projected, sum, out })
    }
}

/// `y` in float64, of rows side by side, for a layer of `weight`.
#[cfg(test)]
pub(crate) fn reference(
    x: &[f64],
    weight: &[f64],
    residual: &[f64],
    inputs: usize,
    norm: &AddLayerNorm,
) -> Vec<f64> {
    let no_bias = vec![0.0; weight.len() / inputs];
    let activation = super::activation::Activation::None;
    norm.reference(&linear::reference(x, weight, &no_bias, inputs, activation), residual)
}
