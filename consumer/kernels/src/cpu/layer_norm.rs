//! `layer_norm` on the processor, and the part of it that `embed_layer_norm` and `add_layer_norm` share.

use std::ops::Deref;

use candle_core::{Result, Storage};

use super::element::{Element, by_dtype};
use super::math::{sum, sum_of_squares};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{Borrowed, borrow, write};
use crate::ops::layer_norm::{LayerNorm, Operands};

pub(super) fn layer_norm(op: &LayerNorm, Operands { x, out }: Operands<'_>) -> Result<()> {
    let parameters = borrow_norm(op);
    let norm = parameters.row()?;
    let isa = Isa::best();
    let hidden = norm.scale.len();
    let x = borrow(x);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(out.values::<E>()?, hidden, |rows, out| {
                normalize_rows(isa, out, &x[rows.start * hidden..rows.end * hidden], norm);
            });
        });
        Ok(())
    })
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
pub(super) struct NormParameters<'a, S> {
    scale: Borrowed<'a, S>,
    shift: Borrowed<'a, S>,
    eps: f32,
}

impl<S: Deref<Target = Storage>> NormParameters<'_, S> {
    /// Their values on the processor.
    pub(super) fn row(&self) -> Result<NormRow<'_>> {
        Ok(NormRow { scale: self.scale.values()?, shift: self.shift.values()?, eps: self.eps })
    }
}

/// A LayerNorm's parameters as values.
#[derive(Clone, Copy)]
pub(super) struct NormRow<'a> {
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) eps: f32,
}

/// Normalises a row.
#[inline(always)]
pub(super) fn normalize_row<T: Target, E: Element>(row: &[f32], norm: NormRow<'_>, out: &mut [E]) {
    let width = row.len() as f32;
    let mean = sum(row) / width;
    let variance = sum_of_squares::<T>(row, mean) / width;
    let inverse = 1.0 / (variance + norm.eps).sqrt();
    for (((out, value), scale), shift) in out.iter_mut().zip(row).zip(norm.scale).zip(norm.shift) {
        *out = E::narrow(T::mul_add((*value - mean) * inverse, *scale, *shift));
    }
}

/// The parameters of a LayerNorm, borrowed for the time of one operation.
pub(super) fn borrow_norm(op: &LayerNorm) -> NormParameters<'_, impl Deref<Target = Storage> + '_> {
    NormParameters { scale: borrow(&op.scale), shift: borrow(&op.shift), eps: op.eps }
}
