//! `layer_norm` on rows, and the part of it that `embed_layer_norm` and `add_layer_norm` share.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = (x - mean) / sqrt(variance + eps) * scale + shift` |
//! | shapes | `x`, `y`: `[tokens, hidden]`; `scale`, `shift`: `[hidden]` |
//! | dtype | f32 or bf16; parameters and all that is in between are f32 |
//! | memory traffic | `x` and `y` once |
//! | numerics | the variance is the mean square distance to the mean, taken in a second pass over a row that is still in the first cache (no cancellation); sums in f32 over 32 lanes |
//! | source | Ba et al. 2016 |
#![allow(unsafe_code)]

use std::ops::Deref;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor};

use crate::KernelError;
use crate::block::Columns;
use crate::element::{Element, by_dtype};
use crate::math::{sum, sum_of_squares};
use crate::operand::{Operand, Parameter, borrow, dtype, output, values, values_mut};
use crate::parallel::{for_each, threads};
use crate::scratch::sized;
use crate::simd::{Isa, Target, dispatched};

const OP: &str = "layer_norm";

/// A LayerNorm over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[hidden]`, multiplied; f32.
    pub scale: Tensor,
    /// `[hidden]`, added; f32.
    pub shift: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// `x`: `[tokens, hidden]`; gives the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, hidden, _) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let out = output(x, (tokens, hidden))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, hidden]`; writes `out` of the same shape.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let (tokens, hidden, dtype) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        self.check(OP, hidden)?;
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, hidden], dtype)?;
        Ok(out.inplace_op2(x, self)?)
    }

    pub(crate) fn check(&self, op: &'static str, hidden: usize) -> Result<(), KernelError> {
        Operand { op, name: "scale", tensor: &self.scale }.expect(&[hidden], DType::F32)?;
        Operand { op, name: "shift", tensor: &self.shift }.expect(&[hidden], DType::F32)
    }

    /// The parameters, borrowed for the time of one operation.
    pub(crate) fn borrow(&self) -> NormParameters<'_, impl Deref<Target = Storage> + '_> {
        NormParameters { scale: borrow(&self.scale), shift: borrow(&self.shift), eps: self.eps }
    }
}

impl InplaceOp2 for LayerNorm {
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
        let parameters = self.borrow();
        let norm = parameters.row()?;
        by_dtype!(dtype(x), |E| {
            let (x, out) = (values::<E>(x, x_layout)?, values_mut::<E>(out, out_layout)?);
            let isa = Isa::best();
            each_rows(out, norm.scale.len(), |rows, out| {
                let hidden = norm.scale.len();
                normalize_rows(isa, out, &x[rows.start * hidden..rows.end * hidden], norm);
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
        crate::cuda::layer_norm(self, None, false, (out, out_layout), (x, x_layout), None)
    }
}

dispatched! {
    /// Whole rows.
    fn normalize_rows<E>(out: &mut [E], x: &[E], norm: NormRow<'_>) = normalize;
}

#[inline(always)]
fn normalize<T: Target, E: Element>(out: &mut [E], x: &[E], norm: NormRow<'_>) {
    let hidden = norm.scale.len();
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, hidden);
        for (out, x) in out.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)) {
            for (value, x) in row.iter_mut().zip(x) {
                *value = x.widen();
            }
            normalize_row::<T, E>(row, norm, out);
        }
    });
}

/// A LayerNorm's borrowed parameters.
pub(crate) struct NormParameters<'a, S> {
    scale: Parameter<'a, S>,
    shift: Parameter<'a, S>,
    eps: f32,
}

impl<S: Deref<Target = Storage>> NormParameters<'_, S> {
    /// Their values on the processor.
    pub(crate) fn row(&self) -> candle_core::Result<NormRow<'_>> {
        Ok(NormRow { scale: self.scale.values()?, shift: self.shift.values()?, eps: self.eps })
    }
}

/// A LayerNorm's parameters as values.
#[derive(Clone, Copy)]
pub(crate) struct NormRow<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) eps: f32,
}

/// Normalises a row.
#[inline(always)]
pub(crate) fn normalize_row<T: Target, E: Element>(row: &[f32], norm: NormRow<'_>, out: &mut [E]) {
    let width = row.len() as f32;
    let mean = sum(row) / width;
    let variance = sum_of_squares::<T>(row, mean) / width;
    let inverse = 1.0 / (variance + norm.eps).sqrt();
    for (((out, value), scale), shift) in out.iter_mut().zip(row).zip(norm.scale).zip(norm.shift) {
        *out = E::narrow(T::mul_add((*value - mean) * inverse, *scale, *shift));
    }
}

/// Shares out the rows of a matrix whose rows are `width` long: enough tasks for the threads to even out, none so
/// small that handing it over costs more.
pub(crate) fn each_rows<E: Element>(
    matrix: &mut [E],
    width: usize,
    work: impl Fn(std::ops::Range<usize>, &mut [E]) + Sync,
) {
    if width == 0 {
        return;
    }
    let rows = matrix.len() / width;
    let per_task = rows.div_ceil(4 * threads()).max(8);
    let matrix = Columns::new(matrix, width);
    for_each(rows.div_ceil(per_task), |task| {
        let range = task * per_task..rows.min((task + 1) * per_task);
        // SAFETY: each task has its own rows.
        let rows = unsafe { matrix.rows(range.clone()) };
        work(range, rows);
    });
}
