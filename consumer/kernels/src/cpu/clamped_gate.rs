//! `clamped_gate` on the processor.

use candle_core::Result;

use super::activation::sigmoid;
use super::element::{Element, by_dtype};
use super::rows::each_rows;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::clamped_gate::{ClampedGate, Operands};

pub(super) fn clamped_gate(op: ClampedGate, Operands { x, out }: Operands<'_>) -> Result<()> {
    let isa = Isa::best();
    let inner = out.dims()[1];
    let x = borrow(x);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(out.values::<E>()?, inner, |rows, out| {
                let x = &x[2 * rows.start * inner..2 * rows.end * inner];
                gate_rows(isa, out, x, inner, op);
            });
        });
        Ok(())
    })
}

dispatched! {
    /// Whole rows.
    fn gate_rows<E>(out: &mut [E], x: &[E], inner: usize, op: ClampedGate) = rows;
}

#[inline(always)]
fn rows<T: Target, E: Element>(out: &mut [E], x: &[E], inner: usize, op: ClampedGate) {
    let ClampedGate { alpha, limit, plus } = op;
    for (out, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(2 * inner)) {
        let (gated, other) = x.split_at(inner);
        for ((out, gated), other) in out.iter_mut().zip(gated).zip(other) {
            let gated = at_most(gated.widen(), limit);
            let other = -at_most(-at_most(other.widen(), limit), limit);
            *out = E::narrow(gated * sigmoid::<T, E>(alpha * gated) * (other + plus));
        }
    }
}

/// NaN stays NaN, as it does not by `min`.
#[inline(always)]
fn at_most(value: f32, limit: f32) -> f32 {
    if value > limit { limit } else { value }
}
