//! `linear_layer_norm` as one kernel, where that is faster.

use candle_core::Result;

use super::address::{address_of, aligned, half, optional_address};
use super::device::run;
use super::launch::{LinearLayerNorm as Launch, LinearLayerNormSm90a};
use super::linear_kernels::{chosen, pays};
use crate::ops::linear::LinearKernels;
use crate::ops::linear_layer_norm::{LinearLayerNorm, Operands};

/// Runs it as one kernel, or returns false: then it is still to be run by `apart`.
pub(super) fn linear_layer_norm(
    op: &LinearLayerNorm,
    Operands { x, residual, out, .. }: Operands<'_>,
    apart: impl Fn() -> Result<()>,
) -> Result<bool> {
    let width = op.linear.outputs();
    let depth = op.linear.inputs();
    let rows = x.dims2()?.0;
    let for_hopper = LinearLayerNormSm90a::<u64>::fits(width, depth);
    let for_all = Launch::<u64>::fits(width, depth);
    if !op.linear.is_plain() || !(for_hopper || for_all) {
        return Ok(false);
    }
    let device = out.device().as_cuda_device()?;
    let half = half(out)?;
    let launch = Launch {
        out: address_of(out)?,
        x: address_of(x)?,
        weight: address_of(&op.linear.weight.values)?,
        residual: address_of(residual)?,
        bias: optional_address(op.norm.bias.as_ref())?,
        scale: address_of(&op.norm.norm.scale)?,
        shift: address_of(&op.norm.norm.shift)?,
        rows: rows as u32,
        depth: depth as u32,
        width: width as u32,
        eps: op.norm.norm.eps,
    };
    if rows == 0 || !aligned(&[launch.out, launch.x, launch.weight, launch.residual]) {
        return Ok(false);
    }
    if for_hopper && chosen(device, &op.linear)? == Some(LinearKernels::Hopper) {
        run(device, on_hopper(launch).launch(half))?;
        return Ok(true);
    }
    if !for_all {
        return Ok(false);
    }
    let together = || run(device, launch.launch(half));
    let sizes = [rows, depth, width];
    if !pays(device, &op.linear, "linear_layer_norm", sizes, together, apart)? {
        return Ok(false);
    }
    together()?;
    Ok(true)
}

fn on_hopper(launch: Launch<u64>) -> LinearLayerNormSm90a<u64> {
    let Launch { out, x, weight, residual, bias, scale, shift, rows, depth, eps, .. } = launch;
    LinearLayerNormSm90a { out, x, weight, residual, bias, scale, shift, rows, depth, eps }
}
