//! The devices that this build can open, and what each can hold.

use candle_core::Device as TensorDevice;
#[cfg(feature = "cuda")]
use forebay_kernels::DeviceFailure;

#[cfg(feature = "cuda")]
use crate::{DType, models::Architecture, weights::Weights};
use crate::{Device, EngineError};

/// A GPU that a model computes on.
#[derive(Debug, Clone)]
pub struct Gpu {
    name: String,
    #[cfg(feature = "cuda")]
    device: TensorDevice,
}

/// Memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// What all processes use.
    pub used: u64,
    /// All of it.
    pub total: u64,
}

impl Gpu {
    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn of(device: &TensorDevice) -> Option<Self> {
        let name = forebay_kernels::gpu::name(device).ok()?;
        Some(Self { name, device: device.clone() })
    }

    #[cfg(not(feature = "cuda"))]
    pub(crate) fn of(_: &TensorDevice) -> Option<Self> {
        None
    }

    /// Its memory now, where its driver tells.
    #[cfg(feature = "cuda")]
    pub fn memory(&self) -> Option<GpuMemory> {
        let forebay_kernels::gpu::DeviceMemory { free, total } =
            forebay_kernels::gpu::memory(&self.device).ok()?;
        Some(GpuMemory { used: total.saturating_sub(free), total })
    }

    /// Its memory now: there is no GPU in this build.
    #[cfg(not(feature = "cuda"))]
    pub fn memory(&self) -> Option<GpuMemory> {
        None
    }
}

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

/// What the driver said, in words that help.
#[cfg(feature = "cuda")]
fn words(error: &candle_core::Error) -> String {
    let said = error.to_string();
    let hint = match DeviceFailure::of(error) {
        Some(DeviceFailure::NoDevice) => "no NVIDIA GPU or no driver is here",
        Some(DeviceFailure::UnknownOrdinal) => {
            "there is no GPU with this number; nvidia-smi lists those that there are"
        }
        Some(DeviceFailure::DriverTooOld) => {
            "the driver is older than this build's CUDA; update it"
        }
        _ => return said,
    };
    format!("{hint} ({})", said.lines().next().unwrap_or_default())
}

/// Refuses a model that the device has no kernels or no memory for, before any of it is loaded.
#[cfg(feature = "cuda")]
pub(crate) fn check(
    device: (&TensorDevice, Device),
    path: &std::path::Path,
    architecture: &Architecture,
    dtype: DType,
    weights: &Weights,
) -> Result<(), EngineError> {
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
