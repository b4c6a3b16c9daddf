//! `add_rms_norm` on the processor.
#![allow(unsafe_code)]

use candle_core::Result;

use super::block::Columns;
use super::element::{Element, by_dtype};
use super::rms_norm::{RmsRow, borrow_rms};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::add_rms_norm::{AddRmsNorm, Operands};

pub(super) fn add_rms_norm(op: &AddRmsNorm, Operands { x, sum, out }: Operands<'_>) -> Result<()> {
    let weight = borrow_rms(&op.norm);
    let norm = weight.row()?;
    let isa = Isa::best();
    let hidden = norm.weight.len();
    let x = borrow(x);
    write(sum, |sum| {
        by_dtype!(sum.dtype(), |E| {
            let x = x.values::<E>()?;
            let sums = Columns::new(sum.values::<E>()?, hidden);
            write(out, |out| {
                each_rows(out.values::<E>()?, hidden, |rows, out| {
                    // SAFETY: each task has its own rows, of the sums as of the output.
                    let sums = unsafe { sums.rows(rows.clone()) };
                    let x = &x[rows.start * hidden..rows.end * hidden];
                    add_and_normalize(isa, out, sums, x, norm);
                });
                Ok(())
            })
        })
    })
}

dispatched! {
    /// Whole rows: `sum = sum + x`, `out = RMSNorm(sum)`.
    fn add_and_normalize<E>(out: &mut [E], sums: &mut [E], x: &[E], norm: RmsRow<'_>) = rows;
}

#[inline(always)]
fn rows<T: Target, E: Element>(out: &mut [E], sums: &mut [E], x: &[E], norm: RmsRow<'_>) {
    let hidden = norm.weight.len();
    let operands = sums.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden));
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, hidden);
        for (out, (sum, x)) in out.chunks_exact_mut(hidden).zip(operands) {
            for ((value, sum), x) in row.iter_mut().zip(&mut *sum).zip(x) {
                *sum = E::narrow(sum.widen() + x.widen());
                *value = sum.widen();
            }
            norm.apply::<T>(row);
            for (out, value) in out.iter_mut().zip(&*row) {
                *out = E::narrow(*value);
            }
        }
    });
}
