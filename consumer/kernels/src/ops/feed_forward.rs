//! `feed_forward`: the feed-forward half of an encoder layer. On the processor one linear layer after the other; on a
//! GPU one kernel that never stores the intermediate activations, where there is one for the sizes and it was measured
//! to be faster.
//!
//! - formula: `y = LayerNorm(x + bias + down * activation(up * x + up_bias))`
//! - shapes: `x`, `y`: `[tokens, hidden]`; `up`: `[inner, hidden]`; `down`: `[hidden, inner]`
//! - dtype: as `linear` and `add_layer_norm`
//! - memory traffic: in one kernel `x`, the weights and `y` once each; apart as `linear` and `add_layer_norm`
//! - numerics: intermediate activations are rounded; in one kernel the second matrix product is normalised before it is
//! - source: Dao et al. 2022 for results that never leave a block

use candle_core::Tensor;

use super::linear::{self, Linear};
use super::linear_layer_norm::{self, LinearLayerNorm};
use crate::error::KernelError;

/// A feed-forward half of a layer: two linear layers, and the norm that closes it.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// `[inner, hidden]`, with its bias and activation.
    pub up: Linear,
    /// `[hidden, inner]`, and the norm.
    pub down: LinearLayerNorm,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`; it is the residual too.
    pub(crate) x: &'a Tensor,
    /// `[tokens, inner]`: scratch memory for the intermediate activations.
    pub(crate) inner: &'a Tensor,
    /// `[tokens, hidden]`: scratch memory for the second linear layer's result.
    pub(crate) projected: &'a Tensor,
    /// `[tokens, hidden]`; written.
    pub(crate) out: &'a Tensor,
}

impl FeedForward {
    pub(crate) fn check(
        &self,
        Operands { x, inner, projected, out }: Operands<'_>,
    ) -> Result<(), KernelError> {
        self.up.check(linear::Operands { x, out: inner })?;
        self.down.check(linear_layer_norm::Operands { x: inner, residual: x, projected, out })
    }
}

/// `y` in float64, of rows side by side. `up` is a weight and its bias, `down` a weight.
#[cfg(test)]
pub(crate) fn reference(
    x: &[f64],
    up: (&[f64], &[f64]),
    activation: super::activation::Activation,
    down: &[f64],
    norm: &super::add_layer_norm::AddLayerNorm,
) -> Vec<f64> {
    let (weight, bias) = up;
    let hidden = weight.len() / bias.len();
    let inner = linear::reference(x, weight, bias, hidden, activation);
    linear_layer_norm::reference(&inner, down, x, bias.len(), norm)
}
