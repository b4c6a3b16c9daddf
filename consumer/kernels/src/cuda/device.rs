//! A device as launches need it: its loaded kernels, its staging buffers, and what is known of its speed.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{Error, Result};

use super::error::error;
use super::launch::{Argument, Launch};
use super::sources::source_of;
use super::staging::Staging;

/// Shared memory that a block has without asking for more.
const SHARED_BYTES: u32 = 48 * 1024;

/// A fused kernel, about how many rows, and its inputs and outputs.
pub(super) type Measured = (&'static str, [usize; 3]);

/// A device's modules, each loaded when its first kernel is launched, its buffers, and what was found out about it.
#[derive(Default)]
struct State {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
    is_hopper: Option<bool>,
    /// Whether a fused kernel takes less time than the operations that it is made of.
    pays: HashMap<Measured, bool>,
    staging: Staging,
}

/// The state of every device that was used: it belongs to the tensor library's devices, which cannot hold it.
static STATES: LazyLock<Mutex<HashMap<DeviceId, State>>> = LazyLock::new(Mutex::default);

fn states() -> MutexGuard<'static, HashMap<DeviceId, State>> {
    STATES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel of that name on the device, free to take so much shared memory.
fn function(device: &CudaDevice, name: &str, shared_bytes: u32) -> Result<CudaFunction> {
    let mut states = states();
    let state = states.entry(device.id()).or_default();
    if let Some(function) = state.functions.get(name) {
        return Ok(function.clone());
    }
    let Some(source) = source_of(name) else {
        return Err(Error::Msg(format!("there is no kernel {name}")));
    };
    let module = match state.modules.entry(source.name) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(vacant) => {
            let context = device.cuda_stream().context().clone();
            let image = Ptx::from_binary(source.image.to_vec());
            vacant.insert(context.load_module(image).map_err(error)?)
        }
    };
    let function = module.load_function(name).map_err(error)?;
    if shared_bytes > SHARED_BYTES {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared_bytes as i32).map_err(error)?;
    }
    state.functions.insert(name.to_owned(), function.clone());
    Ok(function)
}

/// Whether the device has Hopper's own tensor core instructions (wgmma).
pub(super) fn is_hopper(device: &CudaDevice) -> Result<bool> {
    let mut states = states();
    let known = &mut states.entry(device.id()).or_default().is_hopper;
    if let Some(known) = *known {
        return Ok(known);
    }
    let capability = device.cuda_stream().context().compute_capability().map_err(error)?;
    *known = Some(capability == (9, 0));
    Ok(capability == (9, 0))
}

/// Whether a fused kernel was measured to pay on the device, if it was measured.
pub(super) fn measured(device: &CudaDevice, key: Measured) -> Option<bool> {
    states().entry(device.id()).or_default().pays.get(&key).copied()
}

/// Keeps what was measured.
pub(super) fn keep_measured(device: &CudaDevice, key: Measured, pays: bool) {
    states().entry(device.id()).or_default().pays.insert(key, pays);
}

/// Words on the device.
pub(super) fn upload(device: &CudaDevice, words: &[u32]) -> Result<CudaSlice<u32>> {
    states().entry(device.id()).or_default().staging.upload(device, words)
}

/// Puts a launch into the device's stream.
pub(super) fn run(device: &CudaDevice, launch: Option<Launch<u64>>) -> Result<()> {
    let Some(launch) = launch else { return Ok(()) };
    // Shared memory is constant per kernel, except for `pool_normalize`, which stays under 48 KiB.
    let function = function(device, &launch.kernel, launch.shared_bytes)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for argument in &launch.arguments {
        match argument {
            Argument::Pointer(address) => builder.arg(address),
            Argument::Null => builder.arg(&0_u64),
            Argument::U32(value) => builder.arg(value),
            Argument::F32(value) => builder.arg(value),
        };
    }
    let [x, y] = launch.grid;
    let config = LaunchConfig {
        grid_dim: (x, y, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the arguments are those of the kernel, in its order (every launch is run by the tests, on the executor);
    // the addresses are of tensors whose shapes the operations checked and which live until this stream is past them,
    // since memory is freed in its order.
    unsafe { builder.launch(config) }.map_err(error)?;
    Ok(())
}
