//! The operations that are one launch each.

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;

use super::address::{address_of, address_of_slice, half, optional_address};
use super::device::{run, upload};
use super::launch;
use super::sequences::Sequences;
use crate::ops::add_layer_norm::{self, AddLayerNorm, Sum};
use crate::ops::embed_layer_norm::{self, EmbedLayerNorm};
use crate::ops::gate::{self, Gate};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::pool_normalize::{self, PoolNormalize};
use crate::ops::rotary::{self, Rotary};
use crate::ops::varlen_attention::{self, VarlenAttention};

/// By the kernel of `add_layer_norm`, without an addend.
pub(super) fn layer_norm(
    op: &LayerNorm,
    layer_norm::Operands { x, out }: layer_norm::Operands<'_>,
) -> Result<()> {
    let (rows, hidden) = out.dims2()?;
    let launch = launch::AddLayerNorm {
        out: address_of(out)?,
        sum: None,
        x: address_of(x)?,
        residual: None,
        bias: None,
        scale: address_of(&op.scale)?,
        shift: address_of(&op.shift)?,
        rows: rows as u32,
        hidden: hidden as u32,
        eps: op.eps,
    };
    run(out.device().as_cuda_device()?, launch.launch(half(out)?))
}

pub(super) fn add_layer_norm(
    op: &AddLayerNorm,
    add_layer_norm::Operands { x, sum, out }: add_layer_norm::Operands<'_>,
) -> Result<()> {
    let (rows, hidden) = out.dims2()?;
    let (residual, sum) = match sum {
        Sum::Discarded { residual } => (address_of(residual)?, None),
        Sum::Kept { sum } => (address_of(sum)?, Some(address_of(sum)?)),
    };
    let launch = launch::AddLayerNorm {
        out: address_of(out)?,
        sum,
        x: address_of(x)?,
        residual: Some(residual),
        bias: optional_address(op.bias.as_ref())?,
        scale: address_of(&op.norm.scale)?,
        shift: address_of(&op.norm.shift)?,
        rows: rows as u32,
        hidden: hidden as u32,
        eps: op.norm.eps,
    };
    run(out.device().as_cuda_device()?, launch.launch(half(out)?))
}

pub(super) fn embed_layer_norm(
    op: &EmbedLayerNorm<'_>,
    operands: embed_layer_norm::Operands<'_>,
) -> Result<()> {
    let embed_layer_norm::Operands { words, positions, types, out } = operands;
    let device: &CudaDevice = out.device().as_cuda_device()?;
    let (tokens, hidden) = out.dims2()?;
    let sequences = Sequences::of(op.cu_seqlens, device)?;
    let token_ids = upload(device, op.token_ids)?;
    let type_ids = op.type_ids.map(|ids| upload(device, ids)).transpose()?;
    let launch = launch::EmbedLayerNorm {
        out: address_of(out)?,
        words: address_of(words)?,
        positions: optional_address(positions)?,
        types: optional_address(types)?,
        token_ids: address_of_slice(device, &token_ids),
        type_ids: type_ids.as_ref().map(|ids| address_of_slice(device, ids)),
        token_positions: address_of_slice(device, &sequences.positions),
        scale: address_of(&op.norm.scale)?,
        shift: address_of(&op.norm.shift)?,
        tokens: tokens as u32,
        hidden: hidden as u32,
        first_position: op.first_position as u32,
        eps: op.norm.eps,
    };
    run(device, launch.launch(half(out)?))
}

pub(super) fn pool_normalize(
    op: &PoolNormalize<'_>,
    pool_normalize::Operands { x, out }: pool_normalize::Operands<'_>,
) -> Result<()> {
    let device = out.device().as_cuda_device()?;
    let hidden = out.dims2()?.1 as u32;
    let sequences = Sequences::of(op.cu_seqlens, device)?;
    let finishes = op.finishes.iter().map(|finish| launch::finish_word(*finish, hidden));
    let finishes = upload(device, &finishes.collect::<Vec<u32>>())?;
    let launch = launch::PoolNormalize {
        out: address_of(out)?,
        x: address_of(x)?,
        starts: address_of_slice(device, &sequences.starts),
        finishes: address_of_slice(device, &finishes),
        sequences: op.finishes.len() as u32,
        hidden,
        pooling: op.pooling,
    };
    run(device, launch.launch(half(x)?))
}

pub(super) fn gate(op: Gate, gate::Operands { x, out }: gate::Operands<'_>) -> Result<()> {
    let (rows, inner) = out.dims2()?;
    let sizes = [rows as u32, inner as u32];
    let launch = launch::gate(half(out)?, address_of(out)?, address_of(x)?, sizes, op.activation);
    run(out.device().as_cuda_device()?, launch)
}

pub(super) fn rotary(
    op: &Rotary,
    rotary::Operands { qkv, cu_seqlens, heads }: rotary::Operands<'_>,
) -> Result<()> {
    let device = qkv.device().as_cuda_device()?;
    let sequences = Sequences::of(cu_seqlens, device)?;
    let positions = address_of_slice(device, &sequences.positions);
    let sizes = [cu_seqlens.tokens() as u32, heads as u32, op.table.dims()[1] as u32];
    let table = address_of(&op.table)?;
    run(device, launch::rotary(half(qkv)?, address_of(qkv)?, table, positions, sizes))
}

pub(super) fn varlen_attention(
    op: &VarlenAttention<'_>,
    varlen_attention::Operands { qkv, out }: varlen_attention::Operands<'_>,
) -> Result<()> {
    let device = out.device().as_cuda_device()?;
    let dim = out.dims2()?.1 / op.heads;
    let sequences = Sequences::of(op.cu_seqlens, device)?;
    let distance_bias = match op.distance_bias {
        Some(bias) => Some((address_of(bias)?, bias.dims()[1] as u32)),
        None => None,
    };
    let launch = launch::VarlenAttention {
        out: address_of(out)?,
        qkv: address_of(qkv)?,
        bias: optional_address(op.bias)?,
        distance_bias,
        tiles: address_of_slice(device, &sequences.tiles),
        heads: op.heads as u32,
        dim: dim as u32,
        mask: op.mask,
        scale: op.scale(dim),
    };
    run(device, launch.launch(half(out)?, &sequences.tiling))
}
