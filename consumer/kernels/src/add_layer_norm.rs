//! `add_layer_norm`: what closes each half of an encoder layer.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = LayerNorm(x + bias + residual)`; of layers that normalise first, `sum = sum + x + bias` and `y = LayerNorm(sum)` |
//! | shapes | `x`, `residual`, `sum`, `y`: `[tokens, hidden]`; `bias`, `scale`, `shift`: `[hidden]` |
//! | dtype | f32 or bf16; parameters and all that is in between are f32 |
//! | memory traffic | each operand once; where the sum is kept it is read once more |
//! | numerics | as `layer_norm` |
//! | source | Vaswani et al. 2017 (post-norm residual); Ba et al. 2016 (LayerNorm) |

use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Tensor};

use crate::element::{Element, by_dtype};
use crate::layer_norm::{NormRow, each_rows, normalize_row};
use crate::operand::{Operand, borrow, dtype, output, values, values_mut};
use crate::scratch::sized;
use crate::simd::{Isa, Target, dispatched};
use crate::{KernelError, LayerNorm};

const OP: &str = "add_layer_norm";

/// Bias, residual and LayerNorm in one pass.
#[derive(Debug, Clone)]
pub struct AddLayerNorm {
    /// `[hidden]`: the bias of the product that `x` is; f32.
    pub bias: Option<Tensor>,
    /// The normalisation.
    pub norm: LayerNorm,
}

impl AddLayerNorm {
    /// `x` and `residual`: `[tokens, hidden]`; gives `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, hidden, _) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let out = output(x, (tokens, hidden))?;
        self.forward_into(x, residual, &out)?;
        Ok(out)
    }

    /// `x` and `residual`: `[tokens, hidden]`; writes `out` of the same shape.
    pub fn forward_into(
        &self,
        x: &Tensor,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.check(x, ("residual", residual), ("out", out))?;
        Ok(out.inplace_op3(x, residual, self)?)
    }

    /// Adds `x` and the bias to `sum`, then writes `sum` normalised to `out`: all `[tokens, hidden]`.
    pub fn forward_both_into(
        &self,
        x: &Tensor,
        sum: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.check(x, ("sum", sum), ("out", out))?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return Ok(out.inplace_op3(x, sum, &KeepSum(self))?);
        }
        sum.inplace_op2(x, self)?;
        self.norm.forward_into(sum, out)
    }

    fn check(
        &self,
        x: &Tensor,
        residual: (&'static str, &Tensor),
        out: (&'static str, &Tensor),
    ) -> Result<(), KernelError> {
        let (tokens, hidden, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        for (name, tensor) in [residual, out] {
            Operand { op: OP, name, tensor }.expect(&[tokens, hidden], dtype)?;
        }
        if let Some(bias) = &self.bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[hidden], DType::F32)?;
        }
        self.norm.check(OP, hidden)
    }
}

impl InplaceOp3 for AddLayerNorm {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<()> {
        let bias = self.bias.as_ref().map(borrow);
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        let parameters = self.norm.borrow();
        let norm = parameters.row()?;
        let (isa, hidden) = (Isa::best(), norm.scale.len());
        by_dtype!(dtype(x), |E| {
            let (x, residual) = (values::<E>(x, x_layout)?, values(residual, residual_layout)?);
            each_rows(values_mut::<E>(out, out_layout)?, hidden, |rows, out| {
                let part = rows.start * hidden..rows.end * hidden;
                add_and_normalize(isa, out, &x[part.clone()], &residual[part], bias, norm);
            });
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut candle_core::CudaStorage,
        out_layout: &Layout,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        residual: &candle_core::CudaStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (out, x) = ((&*out, out_layout), (x, x_layout));
        crate::cuda::add_layer_norm(self, false, out, x, (residual, residual_layout))
    }
}

/// Both outputs at once, of a GPU: the sum is in the residual's place.
#[cfg(feature = "cuda")]
struct KeepSum<'a>(&'a AddLayerNorm);

#[cfg(feature = "cuda")]
impl InplaceOp3 for KeepSum<'_> {
    fn name(&self) -> &'static str {
        "add_layer_norm (both)"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        Err(candle_core::Error::Msg("the processor takes the sum and its norm in turns".to_owned()))
    }

    fn cuda_fwd(
        &self,
        out: &mut candle_core::CudaStorage,
        out_layout: &Layout,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        sum: &candle_core::CudaStorage,
        sum_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (out, x) = ((&*out, out_layout), (x, x_layout));
        crate::cuda::add_layer_norm(self.0, true, out, x, (sum, sum_layout))
    }
}

/// The sum alone, in place.
impl InplaceOp2 for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add_layer_norm (sum)"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        sum_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<()> {
        let bias = self.bias.as_ref().map(borrow);
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        let (isa, hidden) = (Isa::best(), self.norm.scale.elem_count());
        by_dtype!(dtype(x), |E| {
            let x = values::<E>(x, x_layout)?;
            each_rows(values_mut::<E>(sum, sum_layout)?, hidden, |rows, sum| {
                add_rows(isa, sum, &x[rows.start * hidden..rows.end * hidden], hidden, bias);
            });
        });
        Ok(())
    }
}

dispatched! {
    /// Whole rows: `out = LayerNorm(x + bias + residual)`.
    fn add_and_normalize<E>(out: &mut [E], x: &[E], residual: &[E], bias: Option<&[f32]>, norm: NormRow<'_>) = rows;
}

#[inline(always)]
fn rows<T: Target, E: Element>(
    out: &mut [E],
    x: &[E],
    residual: &[E],
    bias: Option<&[f32]>,
    norm: NormRow<'_>,
) {
    let hidden = norm.scale.len();
    let operands = x.chunks_exact(hidden).zip(residual.chunks_exact(hidden));
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, hidden);
        for (out, (x, residual)) in out.chunks_exact_mut(hidden).zip(operands) {
            add::<E>(row, x, residual, bias);
            normalize_row::<T, E>(row, norm, out);
        }
    });
}

dispatched! {
    /// Whole rows: `sum = sum + x + bias`.
    fn add_rows<E>(sum: &mut [E], x: &[E], hidden: usize, bias: Option<&[f32]>) = sums;
}

#[inline(always)]
fn sums<T: Target, E: Element>(sum: &mut [E], x: &[E], hidden: usize, bias: Option<&[f32]>) {
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, hidden);
        for (sum, x) in sum.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)) {
            add::<E>(row, x, sum, bias);
            for (sum, value) in sum.iter_mut().zip(&*row) {
                *sum = E::narrow(*value);
            }
        }
    });
}

/// `row = x + bias + residual`
#[inline(always)]
fn add<E: Element>(row: &mut [f32], x: &[E], residual: &[E], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        for (((row, x), residual), bias) in row.iter_mut().zip(x).zip(residual).zip(bias) {
            *row = x.widen() + bias + residual.widen();
        }
    } else {
        for ((row, x), residual) in row.iter_mut().zip(x).zip(residual) {
            *row = x.widen() + residual.widen();
        }
    }
}
