//! An encoder on a GPU. A batch is begun without waiting for the one before: while the device computes one, the next is
//! being uploaded and the rows of the last one downloaded.
//!
//! All of it goes through one stream, so batches share the memory of hidden states without a race.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device as TensorDevice;
use forebay_kernels::gpu::{self, Download, PinnedBuffer};
use forebay_kernels::{DeviceFailure, KernelError};

use crate::encode::batch::{PackedBatch, Rows};
use crate::encode::encoder::{Encoder, Pending};
use crate::encode::head::Head;
use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::Workspace;
use crate::error::EngineError;
use crate::info::ModelInfo;
use crate::load::options::{DType, Device};
use crate::load::sizes::Sizes;

/// Batches that are begun before the first one is waited for: one uploaded, one computed, one downloaded.
const AHEAD: usize = 3;

/// An encoder on a GPU.
pub(crate) struct GpuEncoder {
    name: Device,
    device: TensorDevice,
    sizes: Sizes,
    layers: Box<dyn Layers>,
    head: Arc<Head>,
    space: Workspace,
    dtype: DType,
    bytes_per_token: usize,
    /// Tokens of the largest batch that there is memory for.
    tokens_held: usize,
    buffers: Buffers,
}

/// Host memory for rows that are being downloaded.
type Buffers = Arc<Mutex<Vec<PinnedBuffer>>>;

impl GpuEncoder {
    /// An encoder on `device`, in the number type of `info`.
    pub(crate) fn new(
        device: TensorDevice,
        info: &ModelInfo,
        sizes: Sizes,
        layers: Box<dyn Layers>,
        head: Head,
    ) -> Self {
        Self {
            name: info.device,
            sizes,
            layers,
            head: Arc::new(head),
            space: Workspace::new(info.dtype.tensor(), device.clone()),
            dtype: info.dtype,
            bytes_per_token: info.bytes_per_token,
            tokens_held: 0,
            buffers: Buffers::default(),
            device,
        }
    }

    /// Sees to it that the device has memory for a batch of so many tokens, or refuses it. Other processes may take
    /// some at any time, so the allocation itself can still fail.
    fn reserve(&mut self, tokens: usize) -> Result<(), EngineError> {
        if tokens <= self.tokens_held {
            return Ok(());
        }
        // The memory of smaller batches is free for this one, and is counted once the device is past them.
        self.release();
        gpu::wait(&self.device)?;
        let left = gpu::memory(&self.device)?.free;
        let needed = (tokens as u64).saturating_mul(self.bytes_per_token as u64);
        if needed > left {
            return Err(EngineError::OutOfMemory { tokens, needed, left });
        }
        self.tokens_held = tokens;
        Ok(())
    }

    /// Releases the memory of hidden states, in the order of the stream.
    fn release(&mut self) {
        self.tokens_held = 0;
        self.space = Workspace::new(self.dtype.tensor(), self.device.clone());
    }

    fn launch(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        self.reserve(batch.tokens())?;
        let sequences = Sequences {
            token_ids: batch.token_ids(),
            type_ids: batch.type_ids(),
            cu_seqlens: batch.cu_seqlens(),
            queries: batch.queries(),
            seen: None,
        };
        let hidden = self.layers.forward(sequences, &mut self.space)?;
        let pooled = self.head.pooled(&hidden, sequences, batch.finishes())?;
        let buffer = lock(&self.buffers).pop().unwrap_or_default();
        let download = Download::begin(&pooled, buffer)?;
        let head = self.head.clone();
        let buffers = self.buffers.clone();
        let name = self.name;
        let device = self.device.clone();
        let width = head.width(self.sizes.hidden);
        let finishes = batch.finishes().to_vec();
        Ok(Pending::new(move || {
            let (values, buffer) =
                download.wait().map_err(|error| lost(name, &device, error.into()))?;
            lock(&buffers).push(buffer);
            Ok(Rows { width, data: head.finish(values, &finishes)?, ends: None })
        }))
    }
}

impl Encoder for GpuEncoder {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        batch.check(self.sizes, self.head.dimensions(self.sizes.hidden))?;
        if batch.tokens() == 0 {
            let width = self.head.width(self.sizes.hidden);
            return Ok(Pending::done(Rows {
                width,
                data: vec![0.0; batch.sequences() * width],
                ends: None,
            }));
        }
        self.launch(batch).map_err(|error| {
            // An allocation may have failed midway: which buffers have grown is unknown.
            self.release();
            lost(self.name, &self.device, error)
        })
    }

    fn ahead(&self) -> usize {
        AHEAD
    }
}

fn lock(buffers: &Mutex<Vec<PinnedBuffer>>) -> MutexGuard<'_, Vec<PinnedBuffer>> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the device in an error that ends its use: one that says so, or after which the device can't be waited for.
fn lost(name: Device, device: &TensorDevice, error: EngineError) -> EngineError {
    let (EngineError::Tensor(said) | EngineError::Kernel(KernelError::Tensor(said))) = &error
    else {
        return error;
    };
    match DeviceFailure::of(said) {
        Some(DeviceFailure::OutOfMemory) => return error,
        Some(DeviceFailure::Lost) => {}
        _ if gpu::wait(device).is_err() => {}
        _ => return error,
    }
    // Dropping the handles of its libraries panics after such an error, so they live until the process ends.
    std::mem::forget(device.clone());
    EngineError::DeviceLost { device: name.to_string(), problem: said.to_string() }
}
