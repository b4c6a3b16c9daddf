//! Each operation's launch on a device, its operands checked before.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig, sys::cublasOperation_t};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::{CudaDType, cudarc};
use candle_core::{CudaStorage, Layout, Result, Tensor};
use half::{bf16, f16};

use super::{
    Products, address, address_of, address_of_slice, aligned, chosen, error, half, run, upload,
};
use crate::launch::{self, Attention, Embedding, HopperLinear, Normalized, Pooled, finish_word};
use crate::{
    Activation, AddLayerNorm, CuSeqlens, EmbedLayerNorm, Finish, LayerNorm, Linear, Pooling,
    VarlenAttention,
};

/// A storage and how it is laid out.
pub(crate) type Place<'a> = (&'a CudaStorage, &'a Layout);

fn optional(tensor: Option<&Tensor>) -> Result<Option<u64>> {
    tensor.map(address_of).transpose()
}

/// `out = LayerNorm(x + bias + residual)`; with `keeps_sum` the residual becomes the sum.
pub(crate) fn layer_norm(
    norm: &LayerNorm,
    bias: Option<&Tensor>,
    keeps_sum: bool,
    out: Place<'_>,
    x: Place<'_>,
    residual: Option<Place<'_>>,
) -> Result<()> {
    let (rows, hidden) = out.1.shape().dims2()?;
    let residual = residual.map(|(storage, layout)| address(storage, layout)).transpose()?;
    let launch = Normalized {
        out: address(out.0, out.1)?,
        sum: residual.filter(|_| keeps_sum),
        x: address(x.0, x.1)?,
        residual,
        bias: optional(bias)?,
        scale: address_of(&norm.scale)?,
        shift: address_of(&norm.shift)?,
        rows: rows as u32,
        hidden: hidden as u32,
        eps: norm.eps,
    };
    run(&out.0.device, launch.launch(half(out.0)?))
}

/// `out = LayerNorm(x + bias + residual)`.
pub(crate) fn add_layer_norm(
    op: &AddLayerNorm,
    keeps_sum: bool,
    out: Place<'_>,
    x: Place<'_>,
    residual: Place<'_>,
) -> Result<()> {
    layer_norm(&op.norm, op.bias.as_ref(), keeps_sum, out, x, Some(residual))
}

/// Gathered rows, summed and normalised.
pub(crate) fn embed_layer_norm(
    op: &EmbedLayerNorm<'_>,
    out: Place<'_>,
    words: Place<'_>,
    positions: Option<&Tensor>,
    types: Option<&Tensor>,
) -> Result<()> {
    let device = &out.0.device;
    let (tokens, hidden) = out.1.shape().dims2()?;
    let sequences = op.cu_seqlens.on_device(device)?;
    let token_ids = upload(device, op.token_ids)?;
    let type_ids = op.type_ids.map(|ids| upload(device, ids)).transpose()?;
    let launch = Embedding {
        out: address(out.0, out.1)?,
        words: address(words.0, words.1)?,
        positions: optional(positions)?,
        types: optional(types)?,
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
    run(device, launch.launch(half(out.0)?))
}

/// One vector a sequence.
pub(crate) fn pool_normalize(
    cu_seqlens: &CuSeqlens,
    pooling: Pooling,
    finishes: &[Finish],
    out: Place<'_>,
    x: Place<'_>,
) -> Result<()> {
    let device = &out.0.device;
    let hidden = out.1.shape().dims2()?.1 as u32;
    let sequences = cu_seqlens.on_device(device)?;
    let words: Vec<u32> = finishes.iter().map(|finish| finish_word(*finish, hidden)).collect();
    let words = upload(device, &words)?;
    let launch = Pooled {
        out: address(out.0, out.1)?,
        x: address(x.0, x.1)?,
        starts: address_of_slice(device, &sequences.starts),
        finishes: address_of_slice(device, &words),
        sequences: finishes.len() as u32,
        hidden,
        pooling,
    };
    run(device, launch.launch(half(x.0)?))
}

/// `out = activation(x[:, ..inner]) * x[:, inner..]`.
pub(crate) fn gate(activation: Activation, out: Place<'_>, x: Place<'_>) -> Result<()> {
    let (rows, inner) = out.1.shape().dims2()?;
    let (to, from) = (address(out.0, out.1)?, address(x.0, x.1)?);
    let sizes = [rows as u32, inner as u32];
    run(&out.0.device, launch::gate(half(out.0)?, to, from, sizes, activation))
}

/// Turns queries and keys.
pub(crate) fn rotary(
    table: &Tensor,
    cu_seqlens: &CuSeqlens,
    heads: usize,
    qkv: Place<'_>,
) -> Result<()> {
    let device = &qkv.0.device;
    let sequences = cu_seqlens.on_device(device)?;
    let positions = address_of_slice(device, &sequences.positions);
    let sizes = [cu_seqlens.tokens() as u32, heads as u32, table.dims()[1] as u32];
    let launch =
        launch::rotary(half(qkv.0)?, address(qkv.0, qkv.1)?, address_of(table)?, positions, sizes);
    run(device, launch)
}

/// Attention within each sequence.
pub(crate) fn varlen_attention(
    op: &VarlenAttention<'_>,
    out: Place<'_>,
    qkv: Place<'_>,
) -> Result<()> {
    let device = &out.0.device;
    let dim = out.1.shape().dims2()?.1 / op.heads;
    let sequences = op.cu_seqlens.on_device(device)?;
    let distance_bias = op
        .distance_bias
        .map(|bias| Ok::<_, candle_core::Error>((address_of(bias)?, bias.dims()[1] as u32)))
        .transpose()?;
    let launch = Attention {
        out: address(out.0, out.1)?,
        qkv: address(qkv.0, qkv.1)?,
        bias: optional(op.bias)?,
        distance_bias,
        tiles: address_of_slice(device, &sequences.tiles),
        heads: op.heads as u32,
        dim: dim as u32,
        mask: op.mask,
        scale: op.scale.unwrap_or(1.0 / (dim as f32).sqrt()),
    };
    run(device, launch.launch(half(out.0)?, &sequences.tiling))
}

/// `out = activation(x * transpose(weight) + bias)`: one kernel on Hopper, elsewhere cuBLAS, then what follows it.
pub(crate) fn linear(
    layer: &Linear,
    bias: Option<&Tensor>,
    activation: Activation,
    (out, out_layout): (&mut CudaStorage, &Layout),
    x: Place<'_>,
    weight: Place<'_>,
) -> Result<()> {
    let rows = x.1.shape().dims2()?.0;
    if rows == 0 {
        return Ok(());
    }
    let sizes = Sizes { rows, inputs: layer.inputs(), outputs: layer.outputs() };
    let launch = HopperLinear {
        out: address(out, out_layout)?,
        x: address(x.0, x.1)?,
        weight: address(weight.0, weight.1)?,
        bias: optional(bias)?,
        rows: rows as u32,
        depth: sizes.inputs as u32,
        width: sizes.outputs as u32,
    };
    // Products that nothing follows too, though the library makes these faster where they are many: it sums up in another
    // order for few rows than for many, and a row's result is not to depend on its company.
    if HopperLinear::<u64>::fits(sizes.outputs, sizes.inputs, activation)
        && aligned(&[launch.out, launch.x, launch.weight, launch.bias.unwrap_or_default()])
        && chosen(&out.device)? == Some(Products::Hopper)
    {
        return run(&out.device, launch.launch(half(x.0)?, activation));
    }
    match half(x.0)? {
        launch::Half::Bf16 => multiply::<bf16>(sizes, (out, out_layout), x, weight)?,
        launch::Half::F16 => multiply::<f16>(sizes, (out, out_layout), x, weight)?,
    }
    if bias.is_none() && activation == Activation::None {
        return Ok(());
    }
    let shape = [rows as u32, sizes.outputs as u32];
    let after = launch::bias_activation(half(out)?, launch.out, launch.bias, shape, activation);
    run(&out.device, after)
}

/// Zero and one of a number type.
trait Number {
    const ZERO: Self;
    const ONE: Self;
}

impl Number for bf16 {
    const ZERO: Self = bf16::ZERO;
    const ONE: Self = bf16::ONE;
}

impl Number for f16 {
    const ZERO: Self = f16::ZERO;
    const ONE: Self = f16::ONE;
}

/// Of a product.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

/// `out = x * transpose(weight)`, sums in f32. cuBLAS counts by columns, so it is given the transpose of all of it.
fn multiply<T>(
    sizes: Sizes,
    (out, out_layout): (&mut CudaStorage, &Layout),
    x: Place<'_>,
    weight: Place<'_>,
) -> Result<()>
where
    T: CudaDType + DeviceRepr + Number,
    cudarc::cublas::CudaBlas: Gemm<T>,
{
    let device: CudaDevice = out.device.clone();
    let config = GemmConfig {
        transa: cublasOperation_t::CUBLAS_OP_T,
        transb: cublasOperation_t::CUBLAS_OP_N,
        m: sizes.outputs as i32,
        n: sizes.rows as i32,
        k: sizes.inputs as i32,
        alpha: T::ONE,
        lda: sizes.inputs as i32,
        ldb: sizes.inputs as i32,
        beta: T::ZERO,
        ldc: sizes.outputs as i32,
    };
    let weight = weight.0.as_cuda_slice::<T>()?.slice(weight.1.start_offset()..);
    let x = x.0.as_cuda_slice::<T>()?.slice(x.1.start_offset()..);
    let mut out = out.as_cuda_slice_mut::<T>()?.slice_mut(out_layout.start_offset()..);
    let blas = device.cublas_handle();
    // SAFETY: the three are as large as the sizes say, which `Linear` checked.
    unsafe { blas.gemm(config, &weight, &x, &mut out) }.map_err(error)
}
