//! Tensors on the processor as slices: read while they are borrowed, written through the tensor library's in-place
//! operation.

use std::ops::Deref;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, InplaceOp1, Layout, Result, Storage, Tensor};

use super::element::Element;

/// A tensor that is read, borrowed for the time of one operation.
pub(crate) struct Borrowed<'a, S> {
    storage: S,
    layout: &'a Layout,
}

/// Borrows a tensor to read it.
pub(crate) fn borrow(tensor: &Tensor) -> Borrowed<'_, impl Deref<Target = Storage> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    Borrowed { storage, layout }
}

impl<S: Deref<Target = Storage>> Borrowed<'_, S> {
    fn on_cpu(&self) -> Result<&CpuStorage> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage),
            _ => Err(Error::Msg("an operand is on another device than the others".to_owned())),
        }
    }

    /// The values of a contiguous tensor.
    pub(crate) fn values<E: Element>(&self) -> Result<&[E]> {
        let storage = self.on_cpu()?;
        let (begin, end) = self.layout.contiguous_offsets().ok_or_else(strided)?;
        let values = E::slice(storage).ok_or_else(mixed)?;
        Ok(&values[begin..end])
    }

    /// The bytes of a contiguous tensor of u8.
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        let (begin, end) = self.layout.contiguous_offsets().ok_or_else(strided)?;
        let bytes: &[u8] = self.on_cpu()?.as_slice()?;
        Ok(&bytes[begin..end])
    }
}

/// A tensor that is written, borrowed for the time of one operation.
pub(crate) struct Written<'a> {
    storage: &'a mut CpuStorage,
    layout: &'a Layout,
}

impl<'a> Written<'a> {
    pub(crate) fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// The values of a contiguous tensor.
    pub(crate) fn values<E: Element>(self) -> Result<&'a mut [E]> {
        let (begin, end) = self.layout.contiguous_offsets().ok_or_else(strided)?;
        let values = E::slice_mut(self.storage).ok_or_else(mixed)?;
        Ok(&mut values[begin..end])
    }
}

/// Borrows a tensor to write it, for the time of `work`. It shares no memory with tensors that are borrowed meanwhile.
pub(crate) fn write(tensor: &Tensor, work: impl Fn(Written<'_>) -> Result<()>) -> Result<()> {
    tensor.inplace_op1(&Write(work))
}

/// The only way to write to a tensor's memory.
struct Write<F>(F);

impl<F: Fn(Written<'_>) -> Result<()>> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.0)(Written { storage, layout })
    }
}

// Operations check both before they run.
fn strided() -> Error {
    Error::Msg("a strided view reached a fused operation".to_owned())
}

fn mixed() -> Error {
    Error::Msg("operands of different number types reached a fused operation".to_owned())
}
