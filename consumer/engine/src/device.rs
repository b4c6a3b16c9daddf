//! The devices that this build can open, and what each can hold.

use candle_core::Device as TensorDevice;
#[cfg(feature = "cuda")]
use forebay_kernels::DeviceFailure;

use crate::error::EngineError;
#[cfg(feature = "cuda")]
use crate::load::options::DType;
use crate::load::options::Device;

/// The GPU that a model computes on.
#[derive(Debug, Clone)]
pub struct Gpu {
    name: String,
    #[cfg(feature = "cuda")]
    device: TensorDevice,
}

/// The memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// Bytes that all processes use.
    pub used: u64,
    /// All bytes that it has.
    pub total: u64,
}

impl Gpu {
    /// The name that its driver reports.
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

    /// Its memory now; `None` where its driver does not say.
    #[cfg(feature = "cuda")]
    pub fn memory(&self) -> Option<GpuMemory> {
        let forebay_kernels::gpu::DeviceMemory { free, total } =
            forebay_kernels::gpu::memory(&self.device).ok()?;
        Some(GpuMemory { used: total.saturating_sub(free), total })
    }

    /// `None`: there is no GPU in this build.
    #[cfg(not(feature = "cuda"))]
    pub fn memory(&self) -> Option<GpuMemory> {
        None
    }
}

/// Tokens of the smallest batch that is worth a device.
#[cfg(feature = "cuda")]
const TOKENS_MIN: u64 = 4_096;
/// Bytes that cuBLAS and the kernels take on a device besides a model: 300 MB were seen.
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

/// The driver's error, with a hint at what to do.
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

/// The sizes of a model that decide whether a GPU can run it.
#[cfg(feature = "cuda")]
pub(crate) struct Needs {
    /// Values of a hidden state.
    pub(crate) hidden: usize,
    /// Values of an attention head.
    pub(crate) head_size: usize,
    /// Values of all weights together.
    pub(crate) weight_values: u64,
    /// Bytes that a token of a batch takes while it is computed.
    pub(crate) bytes_per_token: usize,
    /// The number type computed in.
    pub(crate) dtype: DType,
}

/// Refuses a model that the device has no kernels or no memory for, before any of it is loaded. `path` is the model's
/// configuration.
#[cfg(feature = "cuda")]
pub(crate) fn check(
    device: &TensorDevice,
    name: Device,
    path: &std::path::Path,
    needs: &Needs,
) -> Result<(), EngineError> {
    let (hidden_max, head_max) = forebay_kernels::GPU_LIMITS;
    let refused = |field, value: usize, supported: &str| EngineError::NotSupported {
        path: path.to_owned(),
        field,
        value: format!("{value} on {name}"),
        supported: supported.to_owned(),
    };
    if needs.hidden > hidden_max {
        return Err(refused("hidden_size", needs.hidden, "up to 1536 on a GPU"));
    }
    if needs.head_size > head_max {
        let field = "hidden_size / num_attention_heads";
        return Err(refused(field, needs.head_size, "up to 128 on a GPU"));
    }
    let free = forebay_kernels::gpu::memory(device)?.free;
    let batch = TOKENS_MIN.saturating_mul(needs.bytes_per_token as u64);
    let value_bytes = needs.dtype.tensor().size_in_bytes() as u64;
    let weights = needs.weight_values.saturating_mul(value_bytes);
    let needed = weights.saturating_add(batch).saturating_add(OVERHEAD_BYTES);
    if needed > free {
        return Err(EngineError::DeviceTooSmall { device: name.to_string(), needed, free });
    }
    Ok(())
}
