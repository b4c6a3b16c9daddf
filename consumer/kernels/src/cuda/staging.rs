//! Words on their way to a device, through pinned memory that it reads by itself: no copy is waited for.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, DevicePtrMut, PinnedHostSlice, result,
};

use super::error::error;

/// Buffers that are used in rotation: a batch takes five or six, and three batches are on their way at most.
const BUFFERS: usize = 24;
/// Words of the smallest.
const WORDS_MIN: usize = 1024;

/// A device's buffers, and when each was copied.
#[derive(Default)]
pub(super) struct Staging(VecDeque<(PinnedHostSlice<u32>, CudaEvent)>);

impl Staging {
    /// `words` on the device. An empty slice has an address there too.
    pub(super) fn upload(&mut self, device: &CudaDevice, words: &[u32]) -> Result<CudaSlice<u32>> {
        let words = if words.is_empty() { &[0] } else { words };
        let stream = device.cuda_stream();
        let mut buffer = None;
        if self.0.len() >= BUFFERS
            && let Some((used_longest_ago, copied)) = self.0.pop_front()
        {
            // The oldest copy has normally finished, so this does not block.
            copied.synchronize().map_err(error)?;
            buffer = Some(used_longest_ago).filter(|buffer| buffer.len() >= words.len());
        }
        let mut buffer = if let Some(buffer) = buffer {
            buffer
        } else {
            let len = words.len().next_power_of_two().max(WORDS_MIN);
            // SAFETY: only words that were written are copied from it.
            unsafe { stream.context().alloc_pinned_with_flags(len, 0) }.map_err(error)?
        };
        let from = &mut buffer.as_mut_slice().map_err(error)?[..words.len()];
        from.copy_from_slice(words);
        // SAFETY: the copy below writes all of it before anything reads it.
        let mut slice = unsafe { stream.alloc::<u32>(words.len()) }.map_err(error)?;
        let to = slice.device_ptr_mut(&stream).0;
        // SAFETY: both have as many words; the buffer is kept until the event after the copy has come.
        unsafe { result::memcpy_htod_async(to, from, stream.cu_stream()) }.map_err(error)?;
        let copied = stream.record_event(None).map_err(error)?;
        self.0.push_back((buffer, copied));
        Ok(slice)
    }
}
