//! `feed_forward` as one kernel, where that is faster.

use candle_core::Result;

use super::address::{address_of, aligned, half, optional_address};
use super::device::run;
use super::launch::FeedForward as Launch;
use super::linear_kernels::pays;
use crate::ops::activation::Activation;
use crate::ops::feed_forward::{FeedForward, Operands};

/// Runs it as one kernel, or returns false: then it is still to be run by `apart`.
pub(super) fn feed_forward(
    op: &FeedForward,
    Operands { x, out, .. }: Operands<'_>,
    apart: impl Fn() -> Result<()>,
) -> Result<bool> {
    let width = op.up.inputs();
    let inner = op.up.outputs();
    let rows = x.dims2()?.0;
    let down = &op.down.linear;
    let norm = &op.down.norm;
    let Some(up_bias) = op.up.bias() else { return Ok(false) };
    let plain = op.up.activation == Activation::Gelu && down.is_plain();
    if !plain || !Launch::<u64>::fits(width, inner) {
        return Ok(false);
    }
    let device = out.device().as_cuda_device()?;
    let half = half(out)?;
    let launch = Launch {
        out: address_of(out)?,
        x: address_of(x)?,
        up: address_of(&op.up.weight.values)?,
        down: address_of(&down.weight.values)?,
        up_bias: address_of(up_bias)?,
        bias: optional_address(norm.bias.as_ref())?,
        scale: address_of(&norm.norm.scale)?,
        shift: address_of(&norm.norm.shift)?,
        rows: rows as u32,
        inner: inner as u32,
        eps: norm.norm.eps,
    };
    if rows == 0 || !aligned(&[launch.out, launch.x, launch.up, launch.down]) {
        return Ok(false);
    }
    let together = || run(device, launch.launch(half));
    let sizes = [rows, width, inner];
    if !pays(device, down, "feed_forward", sizes, together, apart)? {
        return Ok(false);
    }
    together()?;
    Ok(true)
}
