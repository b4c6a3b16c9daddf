//! Measuring work on a device, and the errors of the program.

use std::error::Error;

use candle_core::Device;
use forebay_kernels::gpu;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures how long `work` takes on the idle device, in seconds: the mean of as many runs as fit into a fifth of a
/// second.
pub fn seconds(device: &Device, work: &dyn Fn() -> Result<()>) -> Result<f64> {
    const ENOUGH_S: f64 = 0.2;
    const RUNS_MAX: usize = 10_000;
    let timed = |runs: usize| -> Result<f64> {
        gpu::wait(device)?;
        let began = std::time::Instant::now();
        (0..runs).try_for_each(|_| work())?;
        gpu::wait(device)?;
        Ok(began.elapsed().as_secs_f64())
    };
    timed(3)?; // modules are loaded, plans are made
    let once = timed(3)? / 3.0;
    let runs = ((ENOUGH_S / once) as usize).clamp(3, RUNS_MAX);
    Ok(timed(runs)? / runs as f64)
}
