//! Which kernels compute a linear layer: a layer's own choice, or its device's, or what is measured to be faster there.

use std::time::{Duration, Instant};

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;

use super::device::{is_hopper, keep_measured, measured};
use super::error::error;
use crate::ops::linear::{Linear, LinearKernels};

/// Runs of each; the best one counts.
const RUNS: usize = 4;

/// The choice for a layer on a device.
pub(super) fn chosen(device: &CudaDevice, layer: &Linear) -> Result<Option<LinearKernels>> {
    Ok(match layer.kernels {
        None if is_hopper(device)? => Some(LinearKernels::Hopper),
        Some(LinearKernels::Hopper) if !is_hopper(device)? => Some(LinearKernels::Library),
        chosen => chosen,
    })
}

/// Whether one kernel for several operations is to be taken: as was chosen for `layer`, or where `together` takes less
/// time than `apart` on this device, for about so many rows and these sizes. The first call with each runs both a few
/// times, both to the output; a kernel that the device can't run does not pay.
pub(super) fn pays(
    device: &CudaDevice,
    layer: &Linear,
    kernel: &'static str,
    [rows, inputs, outputs]: [usize; 3],
    together: impl Fn() -> Result<()>,
    apart: impl Fn() -> Result<()>,
) -> Result<bool> {
    if let Some(chosen) = chosen(device, layer)? {
        return Ok(chosen == LinearKernels::WholeRows);
    }
    let key = (kernel, [rows.next_power_of_two(), inputs, outputs]);
    if let Some(pays) = measured(device, key) {
        return Ok(pays);
    }
    let mut best_together = Duration::MAX;
    let mut best_apart = Duration::MAX;
    for _ in 0..RUNS {
        best_apart = best_apart.min(timed(device, &apart)?);
        match timed(device, &together) {
            Ok(took) => best_together = best_together.min(took),
            Err(_) => break,
        }
    }
    let pays = best_together < best_apart;
    keep_measured(device, key, pays);
    Ok(pays)
}

fn timed(device: &CudaDevice, work: impl Fn() -> Result<()>) -> Result<Duration> {
    let stream = device.cuda_stream();
    stream.synchronize().map_err(error)?;
    let started = Instant::now();
    work()?;
    stream.synchronize().map_err(error)?;
    Ok(started.elapsed())
}
