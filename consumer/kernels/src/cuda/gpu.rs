//! A GPU as a whole: opened with a stream of its own, asked for its name and its memory, and read from while it goes on.

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice, result};
use candle_core::{CudaDevice, Device, Error, Result, Storage, Tensor};

use super::error;
pub use super::{Products, choose_products};

/// The driver's words for a process that can use its device no more: whatever it asks from then on fails too.
const LOST: [&str; 20] = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    "CUDA_ERROR_MPS_RPC_FAILURE",
    "CUDA_ERROR_UNKNOWN",
];

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What nobody uses.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Opens the GPU with this ordinal. Everything that is done with the device given back is done in the order of one stream.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: tensors of this device are used in its one stream and freed in it, so no use outlives its memory.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// What the GPU calls itself.
pub fn name(device: &Device) -> Result<String> {
    device.as_cuda_device()?.cuda_stream().context().name().map_err(error)
}

/// Its memory now.
pub fn memory(device: &Device) -> Result<Memory> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let (free, total) = stream.context().mem_get_info().map_err(error)?;
    Ok(Memory { free: free as u64, total: total as u64 })
}

/// Whether the error says that this process can use its device no more.
pub fn is_lost(error: &Error) -> bool {
    let words = error.to_string();
    LOST.iter().any(|lost| words.contains(lost))
}

/// Waits until the device has done all that it was told.
pub fn wait(device: &Device) -> Result<()> {
    device.as_cuda_device()?.cuda_stream().synchronize().map_err(error)
}

/// Memory that a device writes to by itself, kept from one result to the next.
#[derive(Debug, Default)]
pub struct Room(Option<PinnedHostSlice<f32>>);

/// Values on their way from a device.
#[derive(Debug)]
pub struct Download {
    /// There until it is given back.
    room: Option<PinnedHostSlice<f32>>,
    done: CudaEvent,
    len: usize,
}

impl Download {
    /// Tells the device to copy a contiguous tensor of f32 into `room` once it is computed, and waits for nothing.
    pub fn begin(tensor: &Tensor, room: Room) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(Error::Msg("a tensor on the processor needs no download".to_owned()));
        };
        let from = super::address(storage, layout)?;
        let (stream, len) = (storage.device.cuda_stream(), layout.shape().elem_count());
        let mut room = match room.0 {
            Some(room) if room.len() >= len => room,
            // SAFETY: only values that the copy below has written are read from it.
            _ => unsafe { stream.context().alloc_pinned_with_flags(len.next_power_of_two(), 0) }
                .map_err(error)?,
        };
        let to = &mut room.as_mut_slice().map_err(error)?[..len];
        // SAFETY: `room` is waited for before it is read, used again or (below) freed; the tensor's memory is freed in the stream's order.
        unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) }.map_err(error)?;
        let done = stream.record_event(None).map_err(error)?;
        Ok(Self { room: Some(room), done, len })
    }

    /// Waits for the values. Gives the room back.
    pub fn wait(mut self) -> Result<(Vec<f32>, Room)> {
        self.done.synchronize().map_err(error)?;
        let Some(room) = self.room.take() else { return Ok(Default::default()) };
        let values = room.as_slice().map_err(error)?[..self.len].to_vec();
        Ok((values, Room(Some(room))))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.room.is_some() {
            // Nobody waited. The memory must not be freed under the device; if it can't be waited for, it writes no more.
            let _ = self.done.synchronize();
        }
    }
}
