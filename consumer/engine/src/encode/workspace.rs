//! Buffers for hidden states that are kept from batch to batch.

use candle_core::{DType, Device, Tensor};

use crate::error::EngineError;

/// The slot of a buffer in a [`Workspace`]. Buffers that are used at the same time have different slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A layer's input.
    Hidden,
    /// The state after the attention half.
    Attended,
    /// Queries, keys and values.
    Qkv,
    /// Attention's output.
    Context,
    /// A projection back to the hidden size.
    Projected,
    /// The intermediate activations of the feed-forward half.
    Inner,
    /// The intermediate activations after their gate.
    Gated,
    /// The states of rows that go to experts.
    Routed,
    /// The sum of all halves so far.
    Residual,
    /// The low-rank state that queries are made of.
    LowRank,
    /// It after its norm.
    LowRankNormed,
    /// The state that keys and values are made of, in latent attention.
    Latent,
    /// Queries as wide as latent keys.
    Absorbed,
    /// Latent attention's output, before each head's values are made of it.
    Weighed,
}

const SLOTS: usize = Slot::Weighed as usize + 1;

/// One thread's buffers, or one device's: each grows to the largest size that it was asked for, and keeps it.
#[derive(Debug)]
pub(crate) struct Workspace {
    dtype: DType,
    device: Device,
    buffers: [Option<Tensor>; SLOTS],
}

impl Workspace {
    pub(crate) fn new(dtype: DType, device: Device) -> Self {
        Self { dtype, device, buffers: [const { None }; SLOTS] }
    }

    /// The slot's buffer as `[rows, width]`, filled with what earlier work left.
    pub(crate) fn take(
        &mut self,
        slot: Slot,
        rows: usize,
        width: usize,
    ) -> Result<Tensor, EngineError> {
        let values = rows * width;
        let buffer = match &mut self.buffers[slot as usize] {
            Some(buffer) if buffer.elem_count() >= values => buffer,
            buffer => buffer.insert(Tensor::zeros(values, self.dtype, &self.device)?),
        };
        Ok(buffer.narrow(0, 0, values)?.reshape((rows, width))?)
    }
}
