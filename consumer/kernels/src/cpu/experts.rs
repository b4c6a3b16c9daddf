//! `experts` on the processor: rows are gathered by expert, pass two grouped matrix products with a gate between them,
//! and are summed by token.

use candle_core::Result;

use super::clamped_gate::clamped_gate;
use super::element::{Element, by_dtype};
use super::gate::gate;
use super::linear::grouped::{Group, grouped};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::clamped_gate::AnyGate;
use crate::ops::experts::{Experts, Operands};
use crate::ops::gate;
use crate::ops::linear::Linear;
use crate::ops::routes::Routes;

pub(super) fn experts(op: &Experts, operands: Operands<'_>) -> Result<()> {
    let Operands { routes, rows, .. } = operands;
    if routes.rows() == 0 {
        return Ok(());
    }
    gather(operands)?;
    grouped(&groups(&op.up, routes), rows.states, rows.up)?;
    let middle = gate::Operands { x: rows.up, out: rows.gated };
    match op.gate {
        AnyGate::Plain(op) => gate(op, middle)?,
        AnyGate::Clamped(op) => clamped_gate(op, middle)?,
    }
    grouped(&groups(&op.down, routes), rows.gated, rows.states)?;
    weigh(operands)
}

/// The layers that have rows.
fn groups<'a>(layers: &'a [Linear], routes: &Routes) -> Vec<Group<'a>> {
    routes.groups().map(|(expert, rows)| Group { layer: &layers[expert], rows }).collect()
}

/// Each row's token's state.
fn gather(Operands { x, routes, rows, .. }: Operands<'_>) -> Result<()> {
    let hidden = x.dims()[1];
    let x = borrow(x);
    write(rows.states, |states| {
        by_dtype!(states.dtype(), |E| {
            let x = x.values::<E>()?;
            each_rows(states.values::<E>()?, hidden, |range, states| {
                let tokens = &routes.token_of_rows()[range];
                for (state, token) in states.chunks_exact_mut(hidden).zip(tokens) {
                    state.copy_from_slice(&x[*token as usize * hidden..][..hidden]);
                }
            });
        });
        Ok(())
    })
}

/// Each token's sum.
fn weigh(Operands { routes, rows, out, onto, .. }: Operands<'_>) -> Result<()> {
    let hidden = out.dims()[1];
    let isa = Isa::best();
    let states = borrow(rows.states);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let states = states.values::<E>()?;
            each_rows(out.values::<E>()?, hidden, |tokens, out| {
                weigh_rows(isa, out, onto, states, routes, tokens.start);
            });
        });
        Ok(())
    })
}

dispatched! {
    /// Whole tokens, from the one at `first` on.
    fn weigh_rows<E>(
        out: &mut [E],
        onto: bool,
        states: &[E],
        routes: &Routes,
        first: usize,
    ) = weighed;
}

#[inline(always)]
fn weighed<T: Target, E: Element>(
    out: &mut [E],
    onto: bool,
    states: &[E],
    routes: &Routes,
    first: usize,
) {
    let top_k = routes.top_k();
    let hidden = states.len() / routes.rows();
    E::with_scratch(|scratch| {
        let sums = sized(&mut scratch.floats, hidden);
        for (token, out) in out.chunks_exact_mut(hidden).enumerate() {
            let these = (first + token) * top_k..(first + token + 1) * top_k;
            let rows = &routes.rows_of_tokens()[these.clone()];
            for (sum, out) in sums.iter_mut().zip(&*out) {
                *sum = if onto { out.widen() } else { 0.0 };
            }
            for (row, weight) in rows.iter().zip(&routes.weights()[these]) {
                let state = &states[*row as usize * hidden..][..hidden];
                for (sum, value) in sums.iter_mut().zip(state) {
                    *sum = T::mul_add(*weight, value.widen(), *sum);
                }
            }
            for (out, sum) in out.iter_mut().zip(&*sums) {
                *out = E::narrow(*sum);
            }
        }
    });
}
