//! Which kernels make a linear layer: chosen by what the device is, or by what is measured to be faster on it.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Result;
use candle_core::cuda_backend::{CudaDevice, DeviceId};

use super::{error, is_hopper};

/// Runs of each; the best one counts.
const RUNS: usize = 4;

/// What was measured: for a device, a kernel and its sizes.
type Key = (DeviceId, &'static str, [usize; 3]);

/// Which kernels make a linear layer and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// The vendor's library makes the product, and kernels of their own do what follows.
    Library,
    /// One kernel keeps whole rows, where there is one for the sizes, with the matrix instructions of every device from
    /// compute capability 8.0 on.
    WholeRows,
    /// One kernel with Hopper's own matrix instructions, where there is one for the sizes.
    Hopper,
}

/// What was chosen instead.
static CHOSEN: Mutex<Option<Products>> = Mutex::new(None);

/// From now on this choice is taken wherever it can be. Without one, as at first, Hopper's are on Hopper; elsewhere whole rows
/// where they are measured to be faster than the library. For measuring and comparing them.
pub fn choose_products(choice: Option<Products>) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = choice;
}

/// The choice for a device.
pub(super) fn chosen(device: &CudaDevice) -> Result<Option<Products>> {
    let chosen = *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match chosen {
        None if is_hopper(device)? => Some(Products::Hopper),
        Some(Products::Hopper) if !is_hopper(device)? => Some(Products::Library),
        chosen => chosen,
    })
}

static MEASURED: LazyLock<Mutex<HashMap<Key, bool>>> = LazyLock::new(Mutex::default);

/// Whether one kernel for several operations is to be taken: as was chosen, or where `together` takes less time than `apart` on
/// this device, for about so many rows and these sizes. The first call with each runs both a few times, which write the same;
/// what the device can't run does not pay.
pub(crate) fn pays(
    device: &CudaDevice,
    kernel: &'static str,
    [rows, inputs, outputs]: [usize; 3],
    together: impl Fn() -> Result<()>,
    apart: impl Fn() -> Result<()>,
) -> Result<bool> {
    if let Some(chosen) = chosen(device)? {
        return Ok(chosen == Products::WholeRows);
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
