//! `gate` on the processor.

use candle_core::Result;

use super::activation::activate;
use super::element::{Element, by_dtype};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::activation::Activation;
use crate::ops::gate::{Gate, Operands};

pub(super) fn gate(op: Gate, Operands { x, out }: Operands<'_>) -> Result<()> {
    let isa = Isa::best();
    let inner = out.dims()[1];
    let x = borrow(x);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(out.values::<E>()?, inner, |rows, out| {
                let x = &x[2 * rows.start * inner..2 * rows.end * inner];
                gate_rows(isa, out, x, inner, op.activation);
            });
        });
        Ok(())
    })
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
