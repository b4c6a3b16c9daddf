//! The operations of `whole_rows` as one kernel each, where that is faster. Both say whether they have run.

use candle_core::{CudaStorage, Layout, Result, Storage, Tensor};

use super::{Products, address_of, aligned, chosen, half, pays, run};
use crate::launch::{FeedForward as Wide, HopperLinearLayerNorm, LinearLayerNorm};
use crate::{Activation, AddLayerNorm, FeedForward, KernelError, LinearThenNorm};

/// Scale, shift and bias of a norm.
fn parameters(norm: &AddLayerNorm) -> Result<(u64, u64, Option<u64>)> {
    let bias = norm.bias.as_ref().map(address_of).transpose()?;
    Ok((address_of(&norm.norm.scale)?, address_of(&norm.norm.shift)?, bias))
}

/// Runs `work` on the storage of a tensor that is on a GPU.
fn on_gpu<R>(
    tensor: &Tensor,
    work: impl FnOnce(&CudaStorage, &Layout) -> Result<R>,
) -> Result<Option<R>> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => work(storage, layout).map(Some),
        _ => Ok(None),
    }
}

/// `out = LayerNorm(linear(x) + bias + residual)`.
pub(crate) fn linear_layer_norm(
    op: &LinearThenNorm,
    x: &Tensor,
    residual: &Tensor,
    out: &Tensor,
    apart: impl Fn() -> std::result::Result<(), KernelError>,
) -> std::result::Result<bool, KernelError> {
    let (weight, width, depth) = (op.linear.weight(), op.linear.outputs(), op.linear.inputs());
    let rows = x.dims()[0];
    let [for_hopper, for_all] = [
        HopperLinearLayerNorm::<u64>::fits(width, depth),
        LinearLayerNorm::<u64>::fits(width, depth),
    ];
    if !op.linear.is_plain() || !(for_hopper || for_all) {
        return Ok(false);
    }
    let Some((device, half)) =
        on_gpu(out, |storage, _| Ok((storage.device.clone(), half(storage)?)))?
    else {
        return Ok(false);
    };
    let (scale, shift, bias) = parameters(&op.norm)?;
    let launch = LinearLayerNorm {
        out: address_of(out)?,
        x: address_of(x)?,
        weight: address_of(weight)?,
        residual: address_of(residual)?,
        bias,
        scale,
        shift,
        rows: rows as u32,
        depth: depth as u32,
        width: width as u32,
        eps: op.norm.norm.eps,
    };
    if rows == 0 || !aligned(&[launch.out, launch.x, launch.weight, launch.residual]) {
        return Ok(false);
    }
    if for_hopper && chosen(&device)? == Some(Products::Hopper) {
        let LinearLayerNorm {
            out, x, weight, residual, bias, scale, shift, rows, depth, eps, ..
        } = launch;
        let launch = HopperLinearLayerNorm {
            out,
            x,
            weight,
            residual,
            bias,
            scale,
            shift,
            rows,
            depth,
            eps,
        };
        run(&device, launch.launch(half))?;
        return Ok(true);
    }
    if !for_all {
        return Ok(false);
    }
    let together = || run(&device, launch.launch(half));
    let apart = || apart().map_err(candle_core::Error::wrap);
    if !pays(&device, "linear_layer_norm", [rows, depth, width], together, apart)? {
        return Ok(false);
    }
    together()?;
    Ok(true)
}

/// `out = LayerNorm(x + bias + down * gelu(up * x + up_bias))`.
pub(crate) fn feed_forward(
    op: &FeedForward,
    x: &Tensor,
    out: &Tensor,
    apart: impl Fn() -> std::result::Result<(), KernelError>,
) -> std::result::Result<bool, KernelError> {
    let (width, inner) = (op.up.inputs(), op.up.outputs());
    let rows = x.dims()[0];
    let Some(up_bias) = op.up.bias() else { return Ok(false) };
    let plain = op.up.activation() == Activation::Gelu && op.down.linear.is_plain();
    if !plain || !Wide::<u64>::fits(width, inner) {
        return Ok(false);
    }
    let Some((device, half)) =
        on_gpu(out, |storage, _| Ok((storage.device.clone(), half(storage)?)))?
    else {
        return Ok(false);
    };
    let (scale, shift, bias) = parameters(&op.down.norm)?;
    let launch = Wide {
        out: address_of(out)?,
        x: address_of(x)?,
        up: address_of(op.up.weight())?,
        down: address_of(op.down.linear.weight())?,
        up_bias: address_of(up_bias)?,
        bias,
        scale,
        shift,
        rows: rows as u32,
        inner: inner as u32,
        eps: op.down.norm.norm.eps,
    };
    if rows == 0 || !aligned(&[launch.out, launch.x, launch.up, launch.down]) {
        return Ok(false);
    }
    let together = || run(&device, launch.launch(half));
    let apart = || apart().map_err(candle_core::Error::wrap);
    if !pays(&device, "feed_forward", [rows, width, inner], together, apart)? {
        return Ok(false);
    }
    together()?;
    Ok(true)
}
