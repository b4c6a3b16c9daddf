//! `add_layer_norm` on the processor.

use candle_core::{Result, Tensor};

use super::element::{Element, by_dtype};
use super::layer_norm::{NormRow, borrow_norm, layer_norm, normalize_row};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::add_layer_norm::{AddLayerNorm, Operands, Sum};
use crate::ops::layer_norm;

pub(super) fn add_layer_norm(
    op: &AddLayerNorm,
    Operands { x, sum, out }: Operands<'_>,
) -> Result<()> {
    match sum {
        Sum::Discarded { residual } => add_and_norm(op, x, residual, out),
        Sum::Kept { sum } => {
            add_to(op, x, sum)?;
            layer_norm(&op.norm, layer_norm::Operands { x: sum, out })
        }
    }
}

/// `out = LayerNorm(x + bias + residual)`
fn add_and_norm(op: &AddLayerNorm, x: &Tensor, residual: &Tensor, out: &Tensor) -> Result<()> {
    let bias = op.bias.as_ref().map(borrow);
    let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
    let parameters = borrow_norm(&op.norm);
    let norm = parameters.row()?;
    let isa = Isa::best();
    let hidden = norm.scale.len();
    let x = borrow(x);
    let residual = borrow(residual);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let x = x.values::<E>()?;
            let residual = residual.values::<E>()?;
            each_rows(out.values::<E>()?, hidden, |rows, out| {
                let part = rows.start * hidden..rows.end * hidden;
                add_and_normalize(isa, out, &x[part.clone()], &residual[part], bias, norm);
            });
        });
        Ok(())
    })
}

/// `sum = sum + x + bias`
fn add_to(op: &AddLayerNorm, x: &Tensor, sum: &Tensor) -> Result<()> {
    let bias = op.bias.as_ref().map(borrow);
    let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
    let isa = Isa::best();
    let hidden = op.norm.scale.elem_count();
    let x = borrow(x);
    write(sum, |sum| {
        by_dtype!(sum.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(sum.values::<E>()?, hidden, |rows, sum| {
                add_rows(isa, sum, &x[rows.start * hidden..rows.end * hidden], hidden, bias);
            });
        });
        Ok(())
    })
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
