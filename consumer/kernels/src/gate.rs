//! `gate`: the middle of a gated feed-forward layer (`GeGLU`, `SwiGLU`).
//!
//! | | |
//! | --- | --- |
//! | formula | `y = activation(x[:, ..inner]) * x[:, inner..]` |
//! | shapes | `x`: `[tokens, 2 * inner]`; `y`: `[tokens, inner]` |
//! | dtype | f32 or bf16, computed in f32 |
//! | memory traffic | `x` and `y` once |
//! | numerics | as [`crate::Activation`] states |
//! | source | Shazeer 2020 |

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};

use crate::activation::activate;
use crate::element::{Element, by_dtype};
use crate::layer_norm::each_rows;
use crate::operand::{Operand, dtype, output, values, values_mut};
use crate::scratch::sized;
use crate::simd::{Isa, Target, dispatched};
use crate::{Activation, KernelError};

const OP: &str = "gate";

/// One half of a row, activated, times the other.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// What the first half goes through.
    pub activation: Activation,
}

impl Gate {
    /// `x`: `[tokens, 2 * inner]`; gives `[tokens, inner]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, width, _) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let out = output(x, (tokens, width / 2))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, 2 * inner]`; writes `out`: `[tokens, inner]`.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, width, dtype) = operand.matrix()?;
        if !width.is_multiple_of(2) {
            return Err(operand.shape_error("rows of two halves".to_owned()));
        }
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, width / 2], dtype)?;
        Ok(out.inplace_op2(x, self)?)
    }
}

impl InplaceOp2 for Gate {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (isa, inner) = (Isa::best(), out_layout.dims()[1]);
        by_dtype!(dtype(x), |E| {
            let x = values::<E>(x, x_layout)?;
            each_rows(values_mut::<E>(out, out_layout)?, inner, |rows, out| {
                let x = &x[2 * rows.start * inner..2 * rows.end * inner];
                gate_rows(isa, out, x, inner, self.activation);
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
    ) -> candle_core::Result<()> {
        crate::cuda::gate(self.activation, (out, out_layout), (x, x_layout))
    }
}

dispatched! {
    /// Whole rows.
    fn gate_rows<E>(out: &mut [E], x: &[E], inner: usize, activation: Activation) = rows;
}

#[inline(always)]
fn rows<T: Target, E: Element>(out: &mut [E], x: &[E], inner: usize, activation: Activation) {
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, inner);
        for (out, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(2 * inner)) {
            let (gated, other) = x.split_at(inner);
            for (value, x) in row.iter_mut().zip(gated) {
                *value = x.widen();
            }
            activate::<T, E>(activation, row);
            for ((out, value), other) in out.iter_mut().zip(&*row).zip(other) {
                *out = E::narrow(value * other.widen());
            }
        }
    });
}
