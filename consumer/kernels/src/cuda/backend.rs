//! NVIDIA GPUs as a [`Backend`].

use candle_core::{Error, Result, Tensor};

use super::{
    feed_forward as fused_feed_forward, linear as layer, linear_layer_norm as fused_layer,
    operations,
};
use crate::ops::add_layer_norm::{self, AddLayerNorm};
use crate::ops::backend::{Backend, feed_forward_apart, linear_layer_norm_apart};
use crate::ops::embed_layer_norm::{self, EmbedLayerNorm};
use crate::ops::feed_forward::{self, FeedForward};
use crate::ops::gate::{self, Gate};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::linear::{self, Linear, PackedWeight};
use crate::ops::linear_layer_norm::{self, LinearLayerNorm};
use crate::ops::pool_normalize::{self, PoolNormalize};
use crate::ops::rotary::{self, Rotary};
use crate::ops::varlen_attention::{self, VarlenAttention};

/// All NVIDIA GPUs: the tensors say which one.
pub(crate) struct Cuda;

impl Backend for Cuda {
    /// Kernels take weights as they come.
    fn pack(&self, weight: &Tensor) -> Result<PackedWeight> {
        Ok(PackedWeight { values: weight.clone(), scales: None, blocks: None })
    }

    fn pack_int8(&self, _: &Tensor) -> Result<PackedWeight> {
        Err(Error::Msg("int8 has no kernels on a GPU; use bf16 or f16".to_owned()))
    }

    /// A cuBLAS GEMM adds no bias, which would take a pass of its own; attention reads every value anyway.
    fn prefers_bias_in_attention(&self) -> bool {
        true
    }

    fn linear(&self, op: &Linear, operands: linear::Operands<'_>) -> Result<()> {
        layer::linear(op, operands)
    }

    fn layer_norm(&self, op: &LayerNorm, operands: layer_norm::Operands<'_>) -> Result<()> {
        operations::layer_norm(op, operands)
    }

    fn add_layer_norm(
        &self,
        op: &AddLayerNorm,
        operands: add_layer_norm::Operands<'_>,
    ) -> Result<()> {
        operations::add_layer_norm(op, operands)
    }

    fn embed_layer_norm(
        &self,
        op: &EmbedLayerNorm<'_>,
        operands: embed_layer_norm::Operands<'_>,
    ) -> Result<()> {
        operations::embed_layer_norm(op, operands)
    }

    fn gate(&self, op: Gate, operands: gate::Operands<'_>) -> Result<()> {
        operations::gate(op, operands)
    }

    fn rotary(&self, op: &Rotary, operands: rotary::Operands<'_>) -> Result<()> {
        operations::rotary(op, operands)
    }

    fn varlen_attention(
        &self,
        op: &VarlenAttention<'_>,
        operands: varlen_attention::Operands<'_>,
    ) -> Result<()> {
        if op.seen.is_some() {
            let problem = "attention to the first tokens alone has no kernel on a GPU";
            return Err(Error::Msg(problem.to_owned()));
        }
        operations::varlen_attention(op, operands)
    }

    fn pool_normalize(
        &self,
        op: &PoolNormalize<'_>,
        operands: pool_normalize::Operands<'_>,
    ) -> Result<()> {
        operations::pool_normalize(op, operands)
    }

    fn linear_layer_norm(
        &self,
        op: &LinearLayerNorm,
        operands: linear_layer_norm::Operands<'_>,
    ) -> Result<()> {
        let apart = || linear_layer_norm_apart(self, op, operands);
        if fused_layer::linear_layer_norm(op, operands, apart)? { Ok(()) } else { apart() }
    }

    fn feed_forward(&self, op: &FeedForward, operands: feed_forward::Operands<'_>) -> Result<()> {
        let apart = || feed_forward_apart(self, op, operands);
        if fused_feed_forward::feed_forward(op, operands, apart)? { Ok(()) } else { apart() }
    }
}
