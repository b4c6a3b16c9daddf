//! `add_layer_norm`: what closes each half of an encoder layer.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = LayerNorm(x + bias + residual)` |
//! | shapes | `x`, `residual`, `y`: `[tokens, hidden]`; `bias`, `scale`, `shift`: `[hidden]` |
//! | dtype | f32 |
//! | numerics | sums in f32 over 32 lanes; variance in a second pass |
//! | source | Vaswani et al. 2017 (post-norm residual); Ba et al. 2016 (LayerNorm) |

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::layer_norm::{NormRow, normalize_row, rows_per_task};
use crate::operand::{Operand, borrow, values};
use crate::simd::{Isa, Target, dispatched};
use crate::{KernelError, LayerNorm};

const OP: &str = "add_layer_norm";

/// Bias, residual and LayerNorm in one pass.
#[derive(Debug, Clone)]
pub struct AddLayerNorm {
    /// `[hidden]`: the bias of the product that `x` is.
    pub bias: Tensor,
    /// The normalisation.
    pub norm: LayerNorm,
}

impl AddLayerNorm {
    /// `x` and `residual`: `[tokens, hidden]`; gives `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, hidden) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        Operand { op: OP, name: "residual", tensor: residual }.expect(&[tokens, hidden])?;
        Operand { op: OP, name: "bias", tensor: &self.bias }.expect(&[hidden])?;
        self.norm.check(OP, hidden)?;
        Ok(x.apply_op2_no_bwd(residual, self)?)
    }
}

impl CustomOp2 for AddLayerNorm {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, residual) = (values(x, x_layout)?, values(residual, residual_layout)?);
        let bias = borrow(&self.bias);
        let (scale, shift) = (borrow(&self.norm.scale), borrow(&self.norm.shift));
        let norm = NormRow { scale: scale.values()?, shift: shift.values()?, eps: self.norm.eps };
        let bias = bias.values()?;
        let hidden = bias.len();
        let mut out = vec![0.0; x.len()];
        if hidden > 0 {
            let task = rows_per_task(x_layout.dims()[0]) * hidden;
            let isa = Isa::best();
            out.par_chunks_mut(task)
                .zip(x.par_chunks(task).zip(residual.par_chunks(task)))
                .for_each(|(out, (x, residual))| {
                    add_and_normalize(isa, out, x, residual, bias, norm);
                });
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

dispatched! {
    /// Whole rows: `out = LayerNorm(x + bias + residual)`.
    fn add_and_normalize(out: &mut [f32], x: &[f32], residual: &[f32], bias: &[f32], norm: NormRow<'_>) = rows;
}

#[inline(always)]
fn rows<T: Target>(out: &mut [f32], x: &[f32], residual: &[f32], bias: &[f32], norm: NormRow<'_>) {
    let hidden = bias.len();
    let operands = x.chunks_exact(hidden).zip(residual.chunks_exact(hidden));
    for (out, (x, residual)) in out.chunks_exact_mut(hidden).zip(operands) {
        for (((out, x), residual), bias) in out.iter_mut().zip(x).zip(residual).zip(bias) {
            *out = x + bias + residual;
        }
        normalize_row::<T>(out, norm);
    }
}
