//! `latent_into_pages` on the processor: a task takes the new tokens of some pages, each of which is written by it
//! alone.
#![allow(unsafe_code)]

use candle_core::Result;

use super::block::Columns;
use super::element::{Element, by_dtype};
use super::page::{PageLayout, put_key};
use super::parallel::{for_each, threads};
use super::rms_norm::{RmsRow, borrow_rms};
use super::rotary::turn;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::latent_into_pages::{LatentIntoPages, Operands};
use crate::ops::step_rows::Span;

/// Tokens a task at least: for fewer, handing it over costs more than it saves.
const TOKENS_MIN: usize = 8;

pub(super) fn latent_into_pages(
    op: &LatentIntoPages<'_>,
    Operands { latent, q, rows, query, pages }: Operands<'_>,
) -> Result<()> {
    let table = op.rotary.map(|rotary| borrow(&rotary.table));
    let norm = borrow_rms(op.norm);
    let layout = PageLayout::of(pages);
    let parts = Parts {
        table: table.as_ref().map(|table| table.values()).transpose()?,
        turned: layout.dim - layout.value_dim,
        is_interleaved: op.is_interleaved,
        norm: norm.row()?,
        heads: op.heads,
        layout,
    };
    let q_width = q.dims()[1];
    let [latent, q] = [borrow(latent), borrow(q)];
    write(&pages.store, |store| {
        by_dtype!(store.dtype(), |E| {
            let store = Columns::new(store.values::<E>()?, layout.page());
            let inputs = Inputs { latent: latent.values::<E>()?, q: q.values()?, q_width };
            write(query, |query| {
                let query = Columns::new(query.values::<E>()?, op.heads * layout.dim);
                run(parts, rows.spans(), inputs, &query, &store);
                Ok(())
            })
        })
    })
}

/// All that is read of a step's rows.
#[derive(Clone, Copy)]
struct Inputs<'a, E> {
    latent: &'a [E],
    q: &'a [E],
    /// Of a row of `q`.
    q_width: usize,
}

/// The parameters, as values.
#[derive(Clone, Copy)]
struct Parts<'a> {
    /// `[positions, turned]`: a position's cosines, then its sines.
    table: Option<&'a [f32]>,
    turned: usize,
    is_interleaved: bool,
    norm: RmsRow<'a>,
    heads: usize,
    layout: PageLayout,
}

fn run<E: Element>(
    parts: Parts<'_>,
    spans: &[Span],
    inputs: Inputs<'_, E>,
    query: &Columns<'_, E>,
    store: &Columns<'_, E>,
) {
    let isa = Isa::best();
    let tokens: usize = spans.iter().map(|span| span.rows.len()).sum();
    let tasks = tokens.div_ceil(TOKENS_MIN).min(4 * threads()).max(1);
    let per_task = spans.len().div_ceil(tasks).max(1);
    for_each(spans.len().div_ceil(per_task), |task| {
        for span in &spans[task * per_task..spans.len().min((task + 1) * per_task)] {
            // SAFETY: spans have rows of their own, and pages of their own: `StepRows` refuses others.
            let (query, page) =
                unsafe { (query.rows(span.rows.clone()), store.rows(span.page..span.page + 1)) };
            write_span(isa, parts, span, inputs, query, page);
        }
    });
}

dispatched! {
    /// The new tokens of one page: their rows, and the page.
    fn write_span<E>(
        parts: Parts<'_>,
        span: &Span,
        inputs: Inputs<'_, E>,
        query: &mut [E],
        page: &mut [E],
    ) = span_of;
}

#[inline(always)]
fn span_of<T: Target, E: Element>(
    parts: Parts<'_>,
    span: &Span,
    inputs: Inputs<'_, E>,
    query: &mut [E],
    page: &mut [E],
) {
    let Parts { turned, heads, layout, .. } = parts;
    if span.slot() == 0 {
        layout.clear_values(page);
    }
    let rank = layout.value_dim;
    let head_width = inputs.q_width / heads;
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, layout.dim);
        for (index, query) in query.chunks_exact_mut(heads * layout.dim).enumerate() {
            let token = span.rows.start + index;
            let angles = parts.angles(span.position + index);
            let latent = &inputs.latent[token * layout.dim..][..layout.dim];
            widen(&mut row[..rank], &latent[..rank]);
            parts.norm.apply::<T>(&mut row[..rank]);
            parts.turned::<T, E>(&mut row[rank..], &latent[rank..], angles);
            put_key(page, span.slot() + index, row);
            let q = &inputs.q[token * inputs.q_width..][..inputs.q_width];
            let heads = q.chunks_exact(head_width).zip(query.chunks_exact_mut(layout.dim));
            for (head, query) in heads {
                let row = &mut row[..turned];
                parts.turned::<T, E>(row, &head[head_width - turned..], angles);
                for (query, value) in query[rank..].iter_mut().zip(&*row) {
                    *query = E::narrow(*value);
                }
            }
        }
    });
}

impl<'a> Parts<'a> {
    /// The angles at a position.
    #[inline(always)]
    fn angles(self, position: usize) -> Option<&'a [f32]> {
        self.table.map(|table| &table[position * self.turned..][..self.turned])
    }

    /// `row` becomes `values`, turned.
    #[inline(always)]
    fn turned<T: Target, E: Element>(self, row: &mut [f32], values: &[E], angles: Option<&[f32]>) {
        if self.is_interleaved {
            let (first, second) = row.split_at_mut(self.turned / 2);
            for ((a, b), pair) in first.iter_mut().zip(second).zip(values.chunks_exact(2)) {
                [*a, *b] = [pair[0].widen(), pair[1].widen()];
            }
        } else {
            widen(row, values);
        }
        if let Some(angles) = angles {
            turn::<T>(row, angles);
        }
    }
}

#[inline(always)]
fn widen<E: Element>(row: &mut [f32], values: &[E]) {
    for (row, value) in row.iter_mut().zip(values) {
        *row = value.widen();
    }
}
