//! `qkv_into_pages` on the processor: a task takes the new tokens of some pages, each of which is written by it alone.
#![allow(unsafe_code)]

use candle_core::Result;

use super::block::Columns;
use super::element::{Element, by_dtype};
use super::page::{PageLayout, put_key, put_value};
use super::parallel::{for_each, threads};
use super::rms_norm::{RmsParameters, RmsRow, borrow_rms};
use super::rotary::turn;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::qkv_into_pages::{Operands, QkvIntoPages};
use crate::ops::step_rows::Span;

/// Tokens a task at least: for fewer, handing it over costs more than it saves.
const TOKENS_MIN: usize = 8;

pub(super) fn qkv_into_pages(
    op: &QkvIntoPages<'_>,
    Operands { qkv, rows, pages }: Operands<'_>,
) -> Result<()> {
    let table = op.rotary.map(|rotary| (borrow(&rotary.table), rotary.table.dims()[1]));
    let angles = match &table {
        Some((table, turned)) => Some(Angles { table: table.values()?, turned: *turned }),
        None => None,
    };
    let norms = [op.q_norm, op.k_norm].map(|norm| norm.map(borrow_rms));
    let [q_norm, k_norm] = &norms;
    let heads = Heads {
        angles,
        q_norm: q_norm.as_ref().map(RmsParameters::row).transpose()?,
        k_norm: k_norm.as_ref().map(RmsParameters::row).transpose()?,
        queries: op.heads,
        layout: PageLayout::of(pages),
    };
    let width = qkv.dims()[1];
    write(&pages.store, |store| {
        by_dtype!(store.dtype(), |E| {
            let store = Columns::new(store.values::<E>()?, heads.layout.page());
            write(qkv, |qkv| {
                let qkv = Columns::new(qkv.values::<E>()?, width);
                run(heads, rows.spans(), &qkv, &store);
                Ok(())
            })
        })
    })
}

fn run<E: Element>(heads: Heads<'_>, spans: &[Span], qkv: &Columns<'_, E>, store: &Columns<'_, E>) {
    let isa = Isa::best();
    let tokens: usize = spans.iter().map(|span| span.rows.len()).sum();
    let tasks = tokens.div_ceil(TOKENS_MIN).min(4 * threads()).max(1);
    let per_task = spans.len().div_ceil(tasks).max(1);
    for_each(spans.len().div_ceil(per_task), |task| {
        for span in &spans[task * per_task..spans.len().min((task + 1) * per_task)] {
            // SAFETY: spans have rows of their own, and pages of their own: `StepRows` refuses others.
            let (qkv, page) =
                unsafe { (qkv.rows(span.rows.clone()), store.rows(span.page..span.page + 1)) };
            write_span(isa, heads, span, qkv, page);
        }
    });
}

/// The angles of every position.
#[derive(Clone, Copy)]
struct Angles<'a> {
    /// `[positions, turned]`: a position's cosines, then its sines.
    table: &'a [f32],
    turned: usize,
}

/// The norms and angles that a token's heads meet.
#[derive(Clone, Copy)]
struct Heads<'a> {
    angles: Option<Angles<'a>>,
    q_norm: Option<RmsRow<'a>>,
    k_norm: Option<RmsRow<'a>>,
    /// Heads of queries.
    queries: usize,
    layout: PageLayout,
}

dispatched! {
    /// The new tokens of one page: their rows, and the page.
    fn write_span<E>(heads: Heads<'_>, span: &Span, qkv: &mut [E], page: &mut [E]) = span_of;
}

#[inline(always)]
fn span_of<T: Target, E: Element>(heads: Heads<'_>, span: &Span, qkv: &mut [E], page: &mut [E]) {
    let layout = heads.layout;
    if span.slot() == 0 {
        layout.clear_values(page);
    }
    let width = (heads.queries + 2 * layout.kv_heads) * layout.dim;
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, layout.dim);
        for (index, token) in qkv.chunks_exact_mut(width).enumerate() {
            let angles = heads.angles.map(|angles| {
                &angles.table[(span.position + index) * angles.turned..][..angles.turned]
            });
            let slot = span.slot() + index;
            let (queries, others) = token.split_at_mut(heads.queries * layout.dim);
            if heads.q_norm.is_some() || angles.is_some() {
                for head in queries.chunks_exact_mut(layout.dim) {
                    prepare::<T, E>(row, head, heads.q_norm, angles);
                    for (value, prepared) in head.iter_mut().zip(&*row) {
                        *value = E::narrow(*prepared);
                    }
                }
            }
            let (keys, values) = others.split_at(layout.kv_heads * layout.dim);
            let pairs = keys.chunks_exact(layout.dim).zip(values.chunks_exact(layout.dim));
            for (part, (key, value)) in page.chunks_exact_mut(layout.head()).zip(pairs) {
                prepare::<T, E>(row, key, heads.k_norm, angles);
                let (panel, panels) = part.split_at_mut(layout.keys());
                put_key(panel, slot, row);
                put_value(panels, slot, value);
            }
        }
    });
}

/// `row` becomes a head, normalised and turned.
#[inline(always)]
fn prepare<T: Target, E: Element>(
    row: &mut [f32],
    head: &[E],
    norm: Option<RmsRow<'_>>,
    angles: Option<&[f32]>,
) {
    for (row, value) in row.iter_mut().zip(head) {
        *row = value.widen();
    }
    if let Some(norm) = norm {
        norm.apply::<T>(row);
    }
    let Some(angles) = angles else { return };
    turn::<T>(row, angles);
}
