//! A GPU as a whole: opened with a stream of its own, asked for its name and memory, and read from while it computes.
#![allow(unsafe_code)]

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice, result};
use candle_core::{CudaDevice, Device, Error, Result, Storage, Tensor};

use super::address::address;
use super::error::error;

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Not in use by any process.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Opens the GPU with this ordinal. All that is done with the device that is returned is done in the order of one
/// stream.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: tensors of this device are used in its one stream and freed in it, so no use outlives its memory.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// The GPU's name, as its driver has it.
pub fn name(device: &Device) -> Result<String> {
    device.as_cuda_device()?.cuda_stream().context().name().map_err(error)
}

/// Its memory now.
pub fn memory(device: &Device) -> Result<DeviceMemory> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let (free, total) = stream.context().mem_get_info().map_err(error)?;
    Ok(DeviceMemory { free: free as u64, total: total as u64 })
}

/// Waits until the device has done all that was put into its stream.
pub fn wait(device: &Device) -> Result<()> {
    device.as_cuda_device()?.cuda_stream().synchronize().map_err(error)
}

/// Pinned host memory, which a device writes to by itself, kept from one download to the next.
#[derive(Debug, Default)]
pub struct PinnedBuffer(Option<PinnedHostSlice<f32>>);

/// Values on their way from a device.
#[derive(Debug)]
pub struct Download {
    /// `None` once it was returned.
    buffer: Option<PinnedHostSlice<f32>>,
    done: CudaEvent,
    len: usize,
}

impl Download {
    /// Has the device copy a contiguous tensor of f32 into `buffer` once it is computed, and waits for nothing.
    pub fn begin(tensor: &Tensor, buffer: PinnedBuffer) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(Error::Msg("a tensor on the processor needs no download".to_owned()));
        };
        let from = address(storage, layout)?;
        let stream = storage.device.cuda_stream();
        let len = layout.shape().elem_count();
        let mut buffer = match buffer.0 {
            Some(buffer) if buffer.len() >= len => buffer,
            // SAFETY: only values that the copy below has written are read from it.
            _ => unsafe { stream.context().alloc_pinned_with_flags(len.next_power_of_two(), 0) }
                .map_err(error)?,
        };
        let to = &mut buffer.as_mut_slice().map_err(error)?[..len];
        // SAFETY: `buffer` is waited for before it is read, used again or (below) freed; the tensor's memory is freed
        // in the stream's order.
        unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) }.map_err(error)?;
        let done = stream.record_event(None).map_err(error)?;
        Ok(Self { buffer: Some(buffer), done, len })
    }

    /// Waits for the values, and returns them with the buffer.
    pub fn wait(mut self) -> Result<(Vec<f32>, PinnedBuffer)> {
        self.done.synchronize().map_err(error)?;
        let Some(buffer) = self.buffer.take() else { return Ok(Default::default()) };
        let values = buffer.as_slice().map_err(error)?[..self.len].to_vec();
        Ok((values, PinnedBuffer(Some(buffer))))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.buffer.is_some() {
            // It was not waited for. The memory must not be freed under the device; if it can't be waited for, it
            // writes no more.
            let _ = self.done.synchronize();
        }
    }
}
