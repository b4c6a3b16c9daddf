//! Memory for hidden states that is kept from batch to batch.

use candle_core::{DType, Device, Tensor};
use forebay_kernels::CuSeqlens;

use crate::EngineError;

/// What a buffer is for. Two that are used at the same time have different names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A layer's input.
    Hidden,
    /// What is made of it halfway.
    Attended,
    /// Queries, keys and values.
    Qkv,
    /// What attention gives.
    Context,
    /// A projection back to the hidden size.
    Projected,
    /// The wide state inside the feed-forward half.
    Inner,
    /// The same after its gate.
    Gated,
}

const PLACES: usize = Place::Gated as usize + 1;

/// One thread's buffers, or one device's: each grows to the largest size that it was asked for, and stays.
#[derive(Debug)]
pub(crate) struct Workspace {
    dtype: DType,
    device: Device,
    buffers: [Option<Tensor>; PLACES],
}

impl Workspace {
    pub(crate) fn new(dtype: DType, device: Device) -> Self {
        Self { dtype, device, buffers: [const { None }; PLACES] }
    }

    /// `[rows, width]`, filled with what earlier work left.
    pub(crate) fn take(
        &mut self,
        place: Place,
        rows: usize,
        width: usize,
    ) -> Result<Tensor, EngineError> {
        let values = rows * width;
        let buffer = match &mut self.buffers[place as usize] {
            Some(buffer) if buffer.elem_count() >= values => buffer,
            buffer => buffer.insert(Tensor::zeros(values, self.dtype, &self.device)?),
        };
        Ok(buffer.narrow(0, 0, values)?.reshape((rows, width))?)
    }
}

/// Packed sequences that are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequences<'a> {
    /// End to end.
    pub(crate) token_ids: &'a [u32],
    /// 1 for the tokens of a second text; `None` where there is no pair.
    pub(crate) type_ids: Option<&'a [u32]>,
    /// Where each begins.
    pub(crate) cu_seqlens: &'a CuSeqlens,
}
