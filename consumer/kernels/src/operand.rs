//! Checks on operands, shared by all operations: shape, number type and layout, refused with the operand's name.

use std::ops::Deref;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, Layout, Storage, Tensor};

use crate::KernelError;
use crate::element::{Element, is_supported};

/// Names an operand of an operation in errors.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) op: &'static str,
    pub(crate) name: &'static str,
    pub(crate) tensor: &'a Tensor,
}

impl Operand<'_> {
    /// The sizes and the number type of a contiguous matrix of hidden states or weights.
    pub(crate) fn matrix(self) -> Result<(usize, usize, DType), KernelError> {
        let on_gpu = self.tensor.device().is_cuda();
        if on_gpu && !matches!(self.tensor.dtype(), DType::BF16 | DType::F16) {
            return Err(self.dtype_error("BF16, F16 on a GPU"));
        }
        if !on_gpu && !is_supported(self.tensor.dtype()) {
            return Err(self.dtype_error("F32, BF16"));
        }
        self.contiguous()?;
        match *self.tensor.dims() {
            [rows, columns] => Ok((rows, columns, self.tensor.dtype())),
            _ => Err(self.shape_error("two dimensions".to_owned())),
        }
    }

    /// Refuses an operand that is not contiguous, of exactly this shape and number type.
    pub(crate) fn expect(self, shape: &[usize], dtype: DType) -> Result<(), KernelError> {
        if self.tensor.dtype() != dtype {
            return Err(self.dtype_error(dtype_name(dtype)));
        }
        self.contiguous()?;
        if self.tensor.dims() == shape {
            return Ok(());
        }
        Err(self.shape_error(format!("{shape:?}")))
    }

    /// The error that this operand's shape does not fit.
    pub(crate) fn shape_error(self, expected: String) -> KernelError {
        KernelError::Shape {
            op: self.op,
            operand: self.name,
            actual: self.tensor.dims().to_vec(),
            expected,
        }
    }

    fn dtype_error(self, expected: &'static str) -> KernelError {
        let (op, operand, actual) = (self.op, self.name, self.tensor.dtype());
        KernelError::DType { op, operand, actual, expected }
    }

    fn contiguous(self) -> Result<(), KernelError> {
        if self.tensor.is_contiguous() {
            return Ok(());
        }
        Err(KernelError::NotContiguous { op: self.op, operand: self.name })
    }
}

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    }
}

/// An output of its own for operations that are not given one.
pub(crate) fn output(like: &Tensor, shape: (usize, usize)) -> Result<Tensor, KernelError> {
    Ok(Tensor::zeros(shape, like.dtype(), like.device())?)
}

/// The number type of a tensor's values.
pub(crate) fn dtype(storage: &CpuStorage) -> DType {
    storage.dtype()
}

/// The values of a contiguous tensor on the processor.
pub(crate) fn values<'a, E: Element>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [E]> {
    let (begin, end) = layout.contiguous_offsets().ok_or_else(strided)?;
    let values = E::slice(storage).ok_or_else(mixed)?;
    Ok(&values[begin..end])
}

/// The same, to be written.
pub(crate) fn values_mut<'a, E: Element>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [E]> {
    let (begin, end) = layout.contiguous_offsets().ok_or_else(strided)?;
    let values = E::slice_mut(storage).ok_or_else(mixed)?;
    Ok(&mut values[begin..end])
}

// Operations check both before they run.
fn strided() -> Error {
    Error::Msg("a strided view reached a fused operation".to_owned())
}

fn mixed() -> Error {
    Error::Msg("operands of different number types reached a fused operation".to_owned())
}

/// A parameter tensor, borrowed for the time of one operation.
pub(crate) struct Parameter<'a, S> {
    storage: S,
    layout: &'a Layout,
}

/// Borrows a parameter.
pub(crate) fn borrow(tensor: &Tensor) -> Parameter<'_, impl Deref<Target = Storage> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    Parameter { storage, layout }
}

impl<S: Deref<Target = Storage>> Parameter<'_, S> {
    /// Its values on the processor.
    pub(crate) fn values<E: Element>(&self) -> candle_core::Result<&[E]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => Err(Error::Msg("a parameter is on another device than the operands".to_owned())),
        }
    }
}
