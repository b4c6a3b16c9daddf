//! Checks on operands, shared by all operations: shape, number type and layout, refused with the operand's name.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Error, Layout, Storage, Tensor};

use crate::KernelError;

/// Names an operand of an operation in errors.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) op: &'static str,
    pub(crate) name: &'static str,
    pub(crate) tensor: &'a Tensor,
}

impl Operand<'_> {
    /// The operand's two sizes; it must be a contiguous f32 matrix.
    pub(crate) fn matrix(self) -> Result<(usize, usize), KernelError> {
        self.layout_checked()?;
        match *self.tensor.dims() {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(self.shape_error("two dimensions".to_owned())),
        }
    }

    /// Refuses an operand that is not contiguous f32 of exactly this shape.
    pub(crate) fn expect(self, shape: &[usize]) -> Result<(), KernelError> {
        self.layout_checked()?;
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

    fn layout_checked(self) -> Result<(), KernelError> {
        let Self { op, name: operand, tensor } = self;
        if tensor.dtype() != DType::F32 {
            return Err(KernelError::DType { op, operand, actual: tensor.dtype() });
        }
        if !tensor.is_contiguous() {
            return Err(KernelError::NotContiguous { op, operand });
        }
        Ok(())
    }
}

/// The values of a contiguous f32 tensor on the processor.
pub(crate) fn values<'a>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&values[begin..end]),
        None => Err(Error::Msg("a strided view reached a fused operation".to_owned())),
    }
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
    pub(crate) fn values(&self) -> candle_core::Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => Err(Error::Msg("a parameter is on another device than the operands".to_owned())),
        }
    }
}
