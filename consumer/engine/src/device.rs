//! The devices that this build can open, and what each can hold.

use std::path::Path;

use candle_core::Device as TensorDevice;

use crate::models::Architecture;
use crate::weights::Weights;
use crate::{DType, Device, EngineError};

/// Tokens of the smallest batch that is worth a device.
#[cfg(feature = "cuda")]
const TOKENS_MIN: u64 = 4_096;
/// What a device's library for products and its kernels take besides a model: 300 MB were seen.
#[cfg(feature = "cuda")]
const OVERHEAD_BYTES: u64 = 512 << 20;

/// Opens a device for tensors.
#[cfg(feature = "cuda")]
pub(crate) fn open(device: Device) -> Result<TensorDevice, EngineError> {
    match device {
        Device::Cpu => Ok(TensorDevice::Cpu),
        Device::Cuda(ordinal) => forebay_kernels::gpu::open(ordinal).map_err(|error| {
            EngineError::DeviceUnavailable { device: device.to_string(), problem: words(&error) }
        }),
    }
}

/// Opens a device for tensors.
#[cfg(not(feature = "cuda"))]
pub(crate) fn open(device: Device) -> Result<TensorDevice, EngineError> {
    match device {
        Device::Cpu => Ok(TensorDevice::Cpu),
        Device::Cuda(_) => Err(EngineError::DeviceNotBuiltIn(device.to_string())),
    }
}

/// What a GPU calls itself.
#[cfg(feature = "cuda")]
pub(crate) fn name(device: &TensorDevice) -> Option<String> {
    forebay_kernels::gpu::name(device).ok()
}

/// The processor has no name here.
#[cfg(not(feature = "cuda"))]
pub(crate) fn name(_: &TensorDevice) -> Option<String> {
    None
}

/// What the driver said, in words that help.
#[cfg(feature = "cuda")]
fn words(error: &candle_core::Error) -> String {
    let said = error.to_string();
    let hint = if said.contains("CUDA_ERROR_STUB_LIBRARY") || said.contains("NO_DEVICE") {
        "no NVIDIA GPU or no driver is here"
    } else if said.contains("INVALID_DEVICE") {
        "there is no GPU with this number; nvidia-smi lists those that there are"
    } else if said.contains("INSUFFICIENT_DRIVER") || said.contains("UNSUPPORTED_PTX") {
        "the driver is older than this build's CUDA; update it"
    } else {
        return said;
    };
    format!("{hint} ({})", said.lines().next().unwrap_or_default())
}

/// Refuses a model that the device has no kernels or no memory for, before any of it is loaded.
#[cfg(feature = "cuda")]
pub(crate) fn check(
    device: (&TensorDevice, Device),
    path: &Path,
    architecture: &Architecture,
    dtype: DType,
    weights: &Weights,
) -> Result<(), EngineError> {
    if device.0.is_cpu() {
        return Ok(());
    }
    let (hidden_max, head_max) = forebay_kernels::GPU_LIMITS;
    let (hidden, head) = (architecture.sizes().hidden, architecture.head_size());
    let refused = |field, value: usize, supported| EngineError::NotSupported {
        path: path.to_owned(),
        field,
        value: format!("{value} on {}", device.1),
        supported,
    };
    if hidden > hidden_max {
        return Err(refused("hidden_size", hidden, "up to 1536 on a GPU"));
    }
    if head > head_max {
        return Err(refused("hidden_size / num_attention_heads", head, "up to 128 on a GPU"));
    }
    let free = forebay_kernels::gpu::memory(device.0)?.free;
    let batch = TOKENS_MIN.saturating_mul(architecture.bytes_per_token(dtype) as u64);
    let weights = weights.values().saturating_mul(dtype.tensor().size_in_bytes() as u64);
    let needed = weights.saturating_add(batch).saturating_add(OVERHEAD_BYTES);
    if needed > free {
        return Err(EngineError::DeviceTooSmall { device: device.1.to_string(), needed, free });
    }
    Ok(())
}

/// The processor takes every model that is read.
#[cfg(not(feature = "cuda"))]
pub(crate) fn check(
    _: (&TensorDevice, Device),
    _: &Path,
    _: &Architecture,
    _: DType,
    _: &Weights,
) -> Result<(), EngineError> {
    Ok(())
}
