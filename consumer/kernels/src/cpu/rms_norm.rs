//! `rms_norm` on the processor, and the part of it that `add_rms_norm` and `qkv_into_pages` share.

use std::ops::Deref;

use candle_core::{Result, Storage};

use super::element::{Element, by_dtype};
use super::math::sum_of_squares;
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{Borrowed, borrow, write};
use crate::ops::rms_norm::{Operands, RmsNorm};

pub(super) fn rms_norm(op: &RmsNorm, Operands { x, out }: Operands<'_>) -> Result<()> {
    let weight = borrow_rms(op);
    let norm = weight.row()?;
    let isa = Isa::best();
    let width = norm.weight.len();
    let x = borrow(x);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(out.values::<E>()?, width, |rows, out| {
                normalize_rows(isa, out, &x[rows.start * width..rows.end * width], norm);
            });
        });
        Ok(())
    })
}

dispatched! {
    /// Whole rows.
    fn normalize_rows<E>(out: &mut [E], x: &[E], norm: RmsRow<'_>) = normalize;
}

#[inline(always)]
fn normalize<T: Target, E: Element>(out: &mut [E], x: &[E], norm: RmsRow<'_>) {
    let width = norm.weight.len();
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, width);
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for (value, x) in row.iter_mut().zip(x) {
                *value = x.widen();
            }
            norm.apply::<T>(row);
            for (out, value) in out.iter_mut().zip(&*row) {
                *out = E::narrow(*value);
            }
        }
    });
}

/// An `RMSNorm`'s borrowed weight.
pub(super) struct RmsParameters<'a, S> {
    weight: Borrowed<'a, S>,
    eps: f32,
}

impl<S: Deref<Target = Storage>> RmsParameters<'_, S> {
    /// Its values on the processor.
    pub(super) fn row(&self) -> Result<RmsRow<'_>> {
        Ok(RmsRow { weight: self.weight.values()?, eps: self.eps })
    }
}

/// An `RMSNorm`'s parameters as values.
#[derive(Clone, Copy)]
pub(super) struct RmsRow<'a> {
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl RmsRow<'_> {
    /// Normalises a row in place.
    #[inline(always)]
    pub(super) fn apply<T: Target>(self, row: &mut [f32]) {
        let mean = sum_of_squares::<T>(row, 0.0) / row.len() as f32;
        let inverse = 1.0 / (mean + self.eps).sqrt();
        for (value, weight) in row.iter_mut().zip(self.weight) {
            *value = *value * inverse * weight;
        }
    }
}

/// The weight of an `RMSNorm`, borrowed for the time of one operation.
pub(super) fn borrow_rms(op: &RmsNorm) -> RmsParameters<'_, impl Deref<Target = Storage> + '_> {
    RmsParameters { weight: borrow(&op.weight), eps: op.eps }
}
