//! Checks on operands, shared by all operations: shape, number type, layout and memory. Errors name the operand.

use candle_core::{DType, Storage, Tensor};

use crate::error::KernelError;

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
        if !on_gpu && !matches!(self.tensor.dtype(), DType::F32 | DType::BF16) {
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
        KernelError::DType {
            op: self.op,
            operand: self.name,
            actual: self.tensor.dtype(),
            expected,
        }
    }

    fn contiguous(self) -> Result<(), KernelError> {
        if self.tensor.is_contiguous() {
            return Ok(());
        }
        Err(KernelError::NotContiguous { op: self.op, operand: self.name })
    }
}

/// A number type by the name that errors give it.
pub(super) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    }
}

/// A new output, for operations that are not given one.
pub(crate) fn output(like: &Tensor, shape: (usize, usize)) -> Result<Tensor, KernelError> {
    Ok(Tensor::zeros(shape, like.dtype(), like.device())?)
}

/// Refuses an output whose memory is that of a tensor that is read.
pub(crate) fn share_no_memory(
    op: &'static str,
    out: &Tensor,
    read: &[(&'static str, &Tensor)],
) -> Result<(), KernelError> {
    let memory = |tensor: &Tensor| -> *const Storage { &raw const *tensor.storage_and_layout().0 };
    let out = memory(out);
    match read.iter().find(|(_, tensor)| memory(tensor) == out) {
        Some((operand, _)) => Err(KernelError::SharedMemory { op, operand }),
        None => Ok(()),
    }
}

/// A tensor's values in float64.
#[cfg(test)]
pub(crate) fn doubles(tensor: &Tensor) -> Vec<f64> {
    let values =
        tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    values.unwrap_or_else(|error| panic!("{error}")).into_iter().map(f64::from).collect()
}
