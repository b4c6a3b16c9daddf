//! The interface of back-ends: all operations on one kind of device.

use candle_core::{Error, Result, Tensor};

use super::add_layer_norm::{self, AddLayerNorm};
use super::blocks::{Fp4Block, Q4Block, Q8Block};
use super::embed_layer_norm::{self, EmbedLayerNorm};
use super::feed_forward::{self, FeedForward};
use super::gate::{self, Gate};
use super::layer_norm::{self, LayerNorm};
use super::linear::{self, Linear, PackedWeight};
use super::linear_layer_norm::{self, LinearLayerNorm};
use super::pool_normalize::{self, PoolNormalize};
use super::rotary::{self, Rotary};
use super::varlen_attention::{self, VarlenAttention};

/// Computes the operations on one kind of device. Operands come checked, on that device, and the output shares no
/// memory with what is read.
pub(crate) trait Backend {
    /// A weight `[out, in]`, of the number type of a layer's input and output, in the layout that [`Self::linear`]
    /// reads.
    fn pack(&self, weight: &Tensor) -> Result<PackedWeight>;

    /// A weight `[out, in]` in f32 as int8 with a scale for each output, in the layout that [`Self::linear`] reads.
    fn pack_int8(&self, weight: &Tensor) -> Result<PackedWeight>;

    /// 4-bit blocks, `[out, in / 32]` of these sizes, in the layout that [`Self::linear`] reads.
    fn pack_q4(&self, sizes: [usize; 2], blocks: &[Q4Block]) -> Result<PackedWeight> {
        let _ = (sizes, blocks);
        Err(Error::Msg("weights in blocks have no kernels on this device".to_owned()))
    }

    /// As [`Self::pack_q4`], of 8-bit blocks.
    fn pack_q8(&self, sizes: [usize; 2], blocks: &[Q8Block]) -> Result<PackedWeight> {
        let _ = (sizes, blocks);
        Err(Error::Msg("weights in blocks have no kernels on this device".to_owned()))
    }

    /// As [`Self::pack_q4`], of blocks of `MXFP4`.
    fn pack_fp4(&self, sizes: [usize; 2], blocks: &[Fp4Block]) -> Result<PackedWeight> {
        let _ = (sizes, blocks);
        Err(Error::Msg("weights in blocks have no kernels on this device".to_owned()))
    }

    /// Whether the bias of queries, keys and values is cheaper to add in attention than in the linear layer before it.
    fn prefers_bias_in_attention(&self) -> bool;

    /// See [`Linear`].
    fn linear(&self, op: &Linear, operands: linear::Operands<'_>) -> Result<()>;

    /// See [`LayerNorm`].
    fn layer_norm(&self, op: &LayerNorm, operands: layer_norm::Operands<'_>) -> Result<()>;

    /// See [`AddLayerNorm`].
    fn add_layer_norm(
        &self,
        op: &AddLayerNorm,
        operands: add_layer_norm::Operands<'_>,
    ) -> Result<()>;

    /// See [`EmbedLayerNorm`].
    fn embed_layer_norm(
        &self,
        op: &EmbedLayerNorm<'_>,
        operands: embed_layer_norm::Operands<'_>,
    ) -> Result<()>;

    /// See [`Gate`].
    fn gate(&self, op: Gate, operands: gate::Operands<'_>) -> Result<()>;

    /// See [`Rotary`].
    fn rotary(&self, op: &Rotary, operands: rotary::Operands<'_>) -> Result<()>;

    /// See [`VarlenAttention`].
    fn varlen_attention(
        &self,
        op: &VarlenAttention<'_>,
        operands: varlen_attention::Operands<'_>,
    ) -> Result<()>;

    /// See [`PoolNormalize`].
    fn pool_normalize(
        &self,
        op: &PoolNormalize<'_>,
        operands: pool_normalize::Operands<'_>,
    ) -> Result<()>;

    /// See [`LinearLayerNorm`]. A back-end may fuse it.
    fn linear_layer_norm(
        &self,
        op: &LinearLayerNorm,
        operands: linear_layer_norm::Operands<'_>,
    ) -> Result<()> {
        linear_layer_norm_apart(self, op, operands)
    }

    /// See [`FeedForward`]. A back-end may fuse it.
    fn feed_forward(&self, op: &FeedForward, operands: feed_forward::Operands<'_>) -> Result<()> {
        feed_forward_apart(self, op, operands)
    }
}

/// The linear layer, then the norm.
pub(crate) fn linear_layer_norm_apart(
    backend: &(impl Backend + ?Sized),
    op: &LinearLayerNorm,
    operands: linear_layer_norm::Operands<'_>,
) -> Result<()> {
    let linear_layer_norm::Operands { x, residual, projected, out } = operands;
    backend.linear(&op.linear, linear::Operands { x, out: projected })?;
    let sum = add_layer_norm::Sum::Discarded { residual };
    backend.add_layer_norm(&op.norm, add_layer_norm::Operands { x: projected, sum, out })
}

/// The first linear layer, then the second one with its norm.
pub(crate) fn feed_forward_apart(
    backend: &(impl Backend + ?Sized),
    op: &FeedForward,
    operands: feed_forward::Operands<'_>,
) -> Result<()> {
    let feed_forward::Operands { x, inner, projected, out } = operands;
    backend.linear(&op.up, linear::Operands { x, out: inner })?;
    let down = linear_layer_norm::Operands { x: inner, residual: x, projected, out };
    backend.linear_layer_norm(&op.down, down)
}
