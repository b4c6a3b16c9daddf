//! Whether one kernel for several operations is faster than these one after the other: measured, on the device at hand.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Result;
use candle_core::cuda_backend::{CudaDevice, DeviceId};

use super::error;

/// Runs of each; the best one counts.
const RUNS: usize = 4;

/// What was measured: for a device, a kernel and its sizes.
type Key = (DeviceId, &'static str, [usize; 3]);

/// What was chosen instead of measuring.
static CHOSEN: Mutex<Option<bool>> = Mutex::new(None);

/// From now on kernels that keep whole rows are taken wherever there are any, or nowhere, or (with `None`, as it is at
/// first) where they are measured to be faster. For measuring and comparing them.
pub fn choose_whole_rows(choice: Option<bool>) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = choice;
}

static MEASURED: LazyLock<Mutex<HashMap<Key, bool>>> = LazyLock::new(Mutex::default);

/// True where `together` takes less time than `apart` on this device, for about so many rows and these sizes. The first
/// call with each runs both a few times, which write the same; what the device can't run does not pay.
pub(crate) fn pays(
    device: &CudaDevice,
    kernel: &'static str,
    [rows, inputs, outputs]: [usize; 3],
    together: impl Fn() -> Result<()>,
    apart: impl Fn() -> Result<()>,
) -> Result<bool> {
    if let Some(choice) = *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) {
        return Ok(choice);
    }
    let key = (device.id(), kernel, [rows.next_power_of_two(), inputs, outputs]);
    let measured = || MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&pays) = measured().get(&key) {
        return Ok(pays);
    }
    let (mut best_together, mut best_apart) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        best_apart = best_apart.min(timed(device, &apart)?);
        match timed(device, &together) {
            Ok(took) => best_together = best_together.min(took),
            Err(_) => break,
        }
    }
    let pays = best_together < best_apart;
    measured().insert(key, pays);
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
