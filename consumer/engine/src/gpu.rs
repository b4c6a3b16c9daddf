//! An encoder on a GPU. A batch is begun without waiting for the one before: while the device computes one, the next is on
//! its way there and the rows of the last one on their way back.
//!
//! All of it goes through one stream, so batches share the memory of hidden states and never meet.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device as TensorDevice;
use forebay_kernels::gpu::{self, Download, Room};
use forebay_kernels::{DeviceFailure, KernelError};

use crate::encoder::check;
use crate::head::Head;
use crate::models::{Layers, Sizes};
use crate::workspace::{Sequences, Workspace};
use crate::{DType, Device, Encoder, EngineError, PackedBatch, Pending, Rows};

/// Batches that are begun before the first one is waited for: one on its way there, one computed, one on its way back.
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
    /// Tokens that there is memory for.
    tokens_held: usize,
    rooms: Rooms,
}

/// Memory for rows that are on their way back.
type Rooms = Arc<Mutex<Vec<Room>>>;

impl GpuEncoder {
    pub(crate) fn new(
        (name, device): (Device, TensorDevice),
        sizes: Sizes,
        layers: Box<dyn Layers>,
        head: Head,
        (dtype, bytes_per_token): (DType, usize),
    ) -> Self {
        let space = Workspace::new(dtype.tensor(), device.clone());
        let (head, rooms) = (Arc::new(head), Rooms::default());
        let tokens_held = 0;
        Self {
            name,
            device,
            sizes,
            layers,
            head,
            space,
            dtype,
            bytes_per_token,
            tokens_held,
            rooms,
        }
    }

    /// Refuses a batch that the device has no memory for. Others may take some at any time: the driver has the last word.
    fn make_room(&mut self, tokens: usize) -> Result<(), EngineError> {
        if tokens <= self.tokens_held {
            return Ok(());
        }
        // What smaller batches had makes room for this one, and is counted once the device is past them.
        self.forget_room();
        gpu::wait(&self.device)?;
        let left = gpu::memory(&self.device)?.free;
        let needed = (tokens as u64).saturating_mul(self.bytes_per_token as u64);
        if needed > left {
            return Err(EngineError::OutOfMemory { tokens, needed, left });
        }
        self.tokens_held = tokens;
        Ok(())
    }

    /// Gives the memory of hidden states back, in the order of the stream.
    fn forget_room(&mut self) {
        self.tokens_held = 0;
        self.space = Workspace::new(self.dtype.tensor(), self.device.clone());
    }

    fn launch(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        self.make_room(batch.tokens())?;
        let sequences = Sequences {
            token_ids: batch.token_ids(),
            type_ids: batch.type_ids(),
            cu_seqlens: batch.cu_seqlens(),
        };
        let hidden = self.layers.forward(sequences, &mut self.space)?;
        let pooled = self.head.pooled(&hidden, batch.cu_seqlens(), batch.finishes())?;
        let room = lock(&self.rooms).pop().unwrap_or_default();
        let download = Download::begin(&pooled, room)?;
        let (head, rooms) = (self.head.clone(), self.rooms.clone());
        let (name, device) = (self.name, self.device.clone());
        let shape = (batch.sequences(), self.sizes.hidden);
        Ok(Pending::new(move || {
            let (values, room) =
                download.wait().map_err(|error| lost(name, &device, error.into()))?;
            lock(&rooms).push(room);
            Ok(Rows { width: head.width(shape.1), data: head.finish(values, shape)? })
        }))
    }
}

impl Encoder for GpuEncoder {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        check(self.sizes, batch)?;
        if batch.tokens() == 0 {
            let width = self.head.width(self.sizes.hidden);
            return Ok(Pending::done(Rows { width, data: vec![0.0; batch.sequences() * width] }));
        }
        self.launch(batch).map_err(|error| {
            // What it did not finish taking may be of any size.
            self.forget_room();
            lost(self.name, &self.device, error)
        })
    }

    fn ahead(&self) -> usize {
        AHEAD
    }
}

fn lock(rooms: &Mutex<Vec<Room>>) -> std::sync::MutexGuard<'_, Vec<Room>> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
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
    // Its libraries' handles panic when they are given up after such an error: the process takes them along when it ends.
    std::mem::forget(device.clone());
    EngineError::DeviceLost { device: name.to_string(), problem: said.to_string() }
}
