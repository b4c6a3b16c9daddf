//! `varlen_attention` on the processor.
//!
//! A task is one head of one sequence. It packs the keys and the values once, then takes the queries a few rows at a
//! time through tiles of at most [`KEYS`] keys: scores, exponentials and the matrix product with the values all happen
//! while those rows' scores are in L1 cache. Sequences of up to [`KEYS`] tokens take one tile.
#![allow(unsafe_code)]

mod head;
mod pack;
mod softmax;

use candle_core::Result;

use self::head::Head;
use self::pack::{key_panels, pack_keys, pack_values};
use self::softmax::{Exponents, Running, online_softmax_tile};
use super::block::{Block, Columns};
use super::element::{Element, by_dtype};
use super::gemm::{PANEL, PanelOf, ROWS_MAX, RowsOf, columns_at_once, multiply, rows_at_once};
use super::parallel::for_each;
use super::scratch::{Scratch, sized};
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::varlen_attention::{Operands, VarlenAttention};

/// Keys a tile: whole panels. With twelve queries their scores take 24 KiB.
const KEYS: usize = 512;

pub(super) fn varlen_attention(
    op: &VarlenAttention<'_>,
    Operands { qkv, out }: Operands<'_>,
) -> Result<()> {
    let borrowed = [op.distance_bias, op.bias].map(|bias| bias.map(borrow));
    let [distance_bias, bias] = &borrowed;
    let distance_bias = distance_bias.as_ref().map(|bias| bias.values()).transpose()?;
    let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
    let qkv = borrow(qkv);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            run::<E>(op, qkv.values()?, [distance_bias, bias], out.values()?);
        });
        Ok(())
    })
}

fn run<E: Element>(
    op: &VarlenAttention<'_>,
    qkv: &[E],
    [distance_bias, bias]: [Option<&[f32]>; 2],
    out: &mut [E],
) {
    let hidden = out.len() / op.cu_seqlens.tokens().max(1);
    let dim = hidden / op.heads;
    if dim == 0 {
        return;
    }
    let scale = op.scale(dim);
    let isa = Isa::best();
    let out = Columns::new(out, hidden);
    for_each(op.cu_seqlens.sequences() * op.heads, |task| {
        let sequence = task / op.heads;
        let head = task % op.heads;
        let range = op.cu_seqlens.range(sequence);
        let distance_bias = distance_bias.map(|bias| {
            let width = bias.len() / op.heads;
            &bias[head * width..(head + 1) * width]
        });
        let qkv = &qkv[range.start * 3 * hidden..range.end * 3 * hidden];
        let first = head * dim;
        let mask = op.mask;
        let seen = op.seen.map_or(range.len(), |seen| seen[sequence]);
        // Of the queries, and of the values.
        let biases = bias.map(|bias| [0, 2].map(|part| &bias[part * hidden + first..][..dim]));
        let head = Head { qkv, hidden, dim, first, mask, seen, scale, distance_bias, biases };
        // SAFETY: each task has its own sequence (rows) or its own head (columns) of the output.
        let mut out = unsafe { out.block(range.start, range.len(), first, dim) };
        E::with_scratch(|scratch| attend_one(isa, head, &mut out, scratch));
    });
}

dispatched! {
    /// One head of one sequence.
    fn attend_one<E>(head: Head<'_, E>, out: &mut Block<'_, E>, scratch: &mut Scratch<E>) = attend;
}

#[inline(always)]
fn attend<T: Target, E: Element>(
    head: Head<'_, E>,
    out: &mut Block<'_, E>,
    scratch: &mut Scratch<E>,
) {
    let tokens = head.tokens();
    if tokens == 0 {
        return;
    }
    let steps = tokens.div_ceil(E::STEP);
    let dims = head.dim.next_multiple_of(PANEL);
    let width = KEYS.min(key_panels(tokens) * PANEL);
    let keys = sized(&mut scratch.keys, key_panels(tokens) * PANEL * head.dim);
    let values = sized(&mut scratch.values, steps * E::STEP * dims);
    pack_keys::<T, E>(head, keys);
    pack_values(head, values);
    let mut work = Work {
        head,
        keys,
        values,
        value_panel: steps * E::STEP * PANEL,
        width,
        scores: sized(&mut scratch.floats, ROWS_MAX * width),
        probabilities: sized(&mut scratch.probabilities, ROWS_MAX * width),
        sums: sized(&mut scratch.sums, ROWS_MAX * dims),
        queries: sized(&mut scratch.queries, ROWS_MAX * head.dim),
    };
    let mut first = 0;
    while first < tokens {
        let count = rows_at_once::<T>(tokens - first);
        work.group::<T>(first, count, out);
        first += count;
    }
}

/// Columns of a packed panel. A head's panels were just packed and are in L2 cache, so no others are prefetched.
#[inline(always)]
fn panel_of<E>(values: &[E], column: usize) -> PanelOf<'_, E> {
    PanelOf { values, column, start: None, next: values.as_ptr().cast() }
}

/// One head at work: its packed keys and values, and buffers for a few queries.
struct Work<'a, E> {
    head: Head<'a, E>,
    /// As [`pack_keys`] leaves them.
    keys: &'a [E],
    /// As [`pack_values`] leaves them.
    values: &'a [E],
    /// Values of one panel of `values`.
    value_panel: usize,
    /// Columns of a tile.
    width: usize,
    /// `[rows, width]`
    scores: &'a mut [f32],
    /// `[rows, width]`
    probabilities: &'a mut [E],
    /// `[rows, dims]`, the head's size rounded up to whole panels.
    sums: &'a mut [f32],
    /// `[rows, dim]`: queries with their bias.
    queries: &'a mut [E],
}

impl<E: Element> Work<'_, E> {
    /// `count` queries from the one at `first` on, against all keys that they see.
    #[inline(always)]
    fn group<T: Target>(&mut self, first: usize, count: usize, out: &mut Block<'_, E>) {
        let head = self.head;
        let last_seen = head.keys_of(first + count - 1).end;
        let mut running = [Running::START; ROWS_MAX];
        let first_tile = head.keys_of(first).start / PANEL * PANEL;
        let mut tile = first_tile;
        while tile < last_seen {
            let keys = self.width.min(last_seen - tile);
            self.score::<T>(first, count, tile, keys);
            let columns = keys.next_multiple_of(PANEL);
            let mut keep = [0.0; ROWS_MAX];
            for (row, (running, keep)) in running[..count].iter_mut().zip(&mut keep).enumerate() {
                let query = first + row;
                let seen = head.keys_of(query);
                let seen = seen.start.clamp(tile, tile + keys) - tile
                    ..seen.end.clamp(tile, tile + keys) - tile;
                let exponents = Exponents {
                    scale: head.scale * std::f32::consts::LOG2_E,
                    bias: head.bias(query, tile, keys),
                };
                let scores = &mut self.scores[row * self.width..][..columns];
                let probabilities = &mut self.probabilities[row * self.width..][..columns];
                *keep =
                    online_softmax_tile::<T, E>(scores, seen, exponents, running, probabilities);
            }
            let keep = (tile > first_tile).then_some(&keep);
            self.weigh::<T>(count, tile, keys, keep);
            tile += keys;
        }
        let dims = self.sums.len() / ROWS_MAX;
        for (row, running) in running[..count].iter().enumerate() {
            let inverse = 1.0 / running.sum;
            let sums = &self.sums[row * dims..][..head.dim];
            let out = out.row(first + row);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = E::narrow(sum * inverse);
            }
            if let Some([_, bias]) = head.biases {
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                    *out = E::narrow(T::mul_add(*sum, inverse, *bias));
                }
            }
        }
    }

    /// `scores = q * transpose(k)` for a tile's keys.
    #[inline(always)]
    fn score<T: Target>(&mut self, first: usize, count: usize, tile: usize, keys: usize) {
        let mut queries = self.head.queries(first, count);
        if let Some([bias, _]) = self.head.biases {
            for (row, to) in self.queries.chunks_exact_mut(self.head.dim).take(count).enumerate() {
                for ((to, value), bias) in to.iter_mut().zip(queries.row(row)).zip(bias) {
                    *to = E::narrow(value.widen() + bias);
                }
            }
            queries = RowsOf::new(self.queries, self.head.dim, count, self.head.dim);
        }
        let panel_len = self.head.dim * PANEL;
        for column in (0..keys).step_by(columns_at_once::<T>()) {
            let panel = &self.keys[(tile + column) / PANEL * panel_len..][..panel_len];
            let scores = &mut self.scores[column..];
            let scores = Block::new(scores, count, columns_at_once::<T>(), self.width);
            multiply::<T, E>(queries, panel_of(panel, column % PANEL), scores);
        }
    }

    /// `sums = sums * keep + probabilities * values` for a tile's keys; of the first tile there are no sums yet.
    #[inline(always)]
    fn weigh<T: Target>(
        &mut self,
        count: usize,
        tile: usize,
        keys: usize,
        keep: Option<&[f32; ROWS_MAX]>,
    ) {
        let depth = keys.next_multiple_of(E::STEP);
        let probabilities = RowsOf::new(self.probabilities, self.width, count, depth);
        let dims = self.sums.len() / ROWS_MAX;
        let mut weighed = [0.0; PANEL * ROWS_MAX];
        for column in (0..self.head.dim).step_by(columns_at_once::<T>()) {
            let panel = &self.values[column / PANEL * self.value_panel..][..self.value_panel];
            let panel = panel_of(&panel[tile * PANEL..], column % PANEL);
            let Some(keep) = keep else {
                let sums = &mut self.sums[column..];
                let sums = Block::new(sums, count, columns_at_once::<T>(), dims);
                multiply::<T, E>(probabilities, panel, sums);
                continue;
            };
            let columns = columns_at_once::<T>();
            let to = Block::new(&mut weighed, count, columns, columns);
            multiply::<T, E>(probabilities, panel, to);
            let rows = weighed.chunks_exact(columns_at_once::<T>()).zip(keep).take(count);
            for (row, (weighed, keep)) in rows.enumerate() {
                let sums = &mut self.sums[row * dims + column..][..columns_at_once::<T>()];
                for (sum, weighed) in sums.iter_mut().zip(weighed) {
                    *sum = T::mul_add(*sum, *keep, *weighed);
                }
            }
        }
    }
}
