//! What closes the halves of a layer, as one operation each: on the processor what they are made of, on a GPU one kernel
//! that keeps whole rows in registers, where there is one for the sizes and it is measured to be faster.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = LayerNorm(x * transpose(weight) + bias + residual)`; `y = LayerNorm(x + bias + down * activation(up * x + up_bias))` |
//! | shapes | `x`: `[tokens, in]`; `residual`, `y`: `[tokens, hidden]` |
//! | dtype | as `linear` and `add_layer_norm` |
//! | memory traffic | in one kernel `x`, the residual, the weights and `y` once each; apart what `linear` and `add_layer_norm` move |
//! | numerics | in one kernel the product is normalised before it is rounded |
//! | source | Dao et al. 2022 for products whose result never leaves a block |

use candle_core::Tensor;

use crate::{AddLayerNorm, KernelError, Linear};

/// A product, and the norm that follows it. The product has no bias of its own: the norm has.
#[derive(Debug, Clone)]
pub struct LinearThenNorm {
    /// `[hidden, in]`
    pub linear: Linear,
    /// Bias, residual and LayerNorm.
    pub norm: AddLayerNorm,
}

impl LinearThenNorm {
    /// `x`: `[tokens, in]`; `residual`: `[tokens, hidden]`; writes `out`: `[tokens, hidden]`. `product`, as large, is room
    /// for what lies between.
    pub fn forward_into(
        &self,
        x: &Tensor,
        residual: &Tensor,
        product: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let apart = || {
            self.linear.forward_into(x, product)?;
            self.norm.forward_into(product, residual, out)
        };
        #[cfg(feature = "cuda")]
        if crate::cuda::linear_layer_norm(self, x, residual, out, apart)? {
            return Ok(());
        }
        apart()
    }
}

/// A feed-forward half of a layer: two linear layers, one after the other.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// `[inner, hidden]`, with its bias and activation.
    pub up: Linear,
    /// `[hidden, inner]`, and the norm.
    pub down: LinearThenNorm,
}

impl FeedForward {
    /// `x`, which is the residual too: `[tokens, hidden]`; writes `out` of the same shape. `inner`: `[tokens, inner]` and
    /// `product`: `[tokens, hidden]` are room for what lies between.
    pub fn forward_into(
        &self,
        x: &Tensor,
        inner: &Tensor,
        product: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let apart = || {
            self.up.forward_into(x, inner)?;
            self.down.forward_into(inner, x, product, out)
        };
        #[cfg(feature = "cuda")]
        if crate::cuda::feed_forward(self, x, out, apart)? {
            return Ok(());
        }
        apart()
    }
}
