//! `varlen_attention`: bidirectional attention within each packed sequence, in one pass over tiles of keys.
//!
//! | | |
//! | --- | --- |
//! | formula | per sequence and head: `y = softmax(q * transpose(k) / sqrt(head_dim)) * v` |
//! | shapes | `qkv`: `[tokens, 3 * hidden]`, a token's queries, keys and values side by side, heads inside; `y`: `[tokens, hidden]` |
//! | dtype | f32 |
//! | numerics | scores and sums in f32; the running maximum is subtracted before `exp` (relative error 2e-7) |
//! | source | Vaswani et al. 2017; tiles with a running maximum after Milakov and Gimelshein 2018 and Dao et al. 2022 |
//!
//! A task is one head of one sequence. For each tile of at most [`KEYS`] keys it transposes the keys once,
//! then takes the queries a few rows at a time: scores, exponentials and the product with the values all
//! happen while those rows' scores are in the first cache. Sequences of up to [`KEYS`] tokens take one tile.
#![allow(unsafe_code)]

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::block::{Block, Columns};
use crate::math::{LANES, exp, largest_lane, sum_lanes};
use crate::operand::{Operand, values};
use crate::product::{COLUMNS_MAX, multiply, multiply_column};
use crate::simd::{Isa, Target, dispatched};
use crate::{CuSeqlens, KernelError};

const OP: &str = "varlen_attention";
/// Keys a tile: with heads of 32 the transposed keys take 64 KiB, an eighth or less of a core's second cache.
const KEYS: usize = 512;

/// Attention of all heads over packed sequences.
#[derive(Debug, Clone, Copy)]
pub struct VarlenAttention<'a> {
    /// Where sequences begin and end.
    pub cu_seqlens: &'a CuSeqlens,
    /// Heads; they divide the hidden size.
    pub heads: usize,
}

impl VarlenAttention<'_> {
    /// `qkv`: `[tokens, 3 * hidden]`; gives `[tokens, hidden]`.
    pub fn forward(&self, qkv: &Tensor) -> Result<Tensor, KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width) = operand.matrix()?;
        if tokens != self.cu_seqlens.tokens() {
            return Err(operand.shape_error(format!(
                "{} tokens, where cu_seqlens ends",
                self.cu_seqlens.tokens()
            )));
        }
        if self.heads == 0 || !width.is_multiple_of(3 * self.heads) {
            return Err(
                operand.shape_error(format!("a width that 3 x {} heads divide", self.heads))
            );
        }
        Ok(qkv.apply_op1_no_bwd(self)?)
    }
}

impl CustomOp1 for VarlenAttention<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let qkv = values(qkv, layout)?;
        let (tokens, hidden) = (layout.dims()[0], layout.dims()[1] / 3);
        let dim = hidden / self.heads;
        let mut out = vec![0.0; tokens * hidden];
        if dim > 0 {
            let isa = Isa::best();
            let out = Columns::new(&mut out, hidden);
            (0..self.cu_seqlens.sequences() * self.heads).into_par_iter().for_each_init(
                Scratch::default,
                |scratch, task| {
                    let (sequence, head) = (task / self.heads, task % self.heads);
                    let range = self.cu_seqlens.range(sequence);
                    let qkv = &qkv[range.start * 3 * hidden..range.end * 3 * hidden];
                    let heads = Head { qkv, hidden, dim, first: head * dim };
                    // SAFETY: each task has its own sequence (rows) or its own head (columns) of the output.
                    let mut out = unsafe { out.block(range.start, range.len(), head * dim, dim) };
                    attend_one(isa, heads, &mut out, scratch);
                },
            );
        }
        Ok((CpuStorage::F32(out), (tokens, hidden).into()))
    }
}

/// One head's queries, keys and values in one sequence's packed rows.
#[derive(Clone, Copy)]
struct Head<'a> {
    qkv: &'a [f32],
    hidden: usize,
    dim: usize,
    first: usize,
}

const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;

impl<'a> Head<'a> {
    fn tokens(self) -> usize {
        self.qkv.len() / (3 * self.hidden)
    }

    /// What scores are multiplied with.
    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// The query, key or value of one token.
    #[inline(always)]
    fn row(self, part: usize, token: usize) -> &'a [f32] {
        &self.qkv[token * 3 * self.hidden + part * self.hidden + self.first..][..self.dim]
    }

    /// The values from the token at `first` on, as a matrix whose rows lie `3 * hidden` apart.
    #[inline(always)]
    fn values_from(self, first: usize) -> &'a [f32] {
        &self.qkv[first * 3 * self.hidden + VALUE * self.hidden + self.first..]
    }
}

/// Memory that a thread reuses from task to task.
#[derive(Default)]
struct Scratch {
    /// A tile's keys transposed, `[dim, keys]`, its width rounded up.
    keys: Vec<f32>,
    /// A few queries' scores, then their exponentials, `[rows, keys]`.
    scores: Vec<f32>,
    /// One a query.
    running: Vec<Running>,
}

dispatched! {
    /// One head of one sequence.
    fn attend_one(head: Head<'_>, out: &mut Block<'_>, scratch: &mut Scratch) = attend;
}

#[inline(always)]
fn attend<T: Target>(head: Head<'_>, out: &mut Block<'_>, scratch: &mut Scratch) {
    // Sums fill half of the registers: fewer than would fit, for the sake of short sequences.
    if T::MANY {
        attend_tiled::<T, 8>(head, out, scratch);
    } else {
        attend_tiled::<T, 4>(head, out, scratch);
    }
}

/// Queries `R` at a time against tiles of keys.
#[inline(always)]
fn attend_tiled<T: Target, const R: usize>(
    head: Head<'_>,
    out: &mut Block<'_>,
    scratch: &mut Scratch,
) {
    let tokens = head.tokens();
    let width = tokens.min(KEYS).next_multiple_of(LANES);
    let Scratch { keys, scores, running } = scratch;
    keys.resize(head.dim * width, 0.0);
    scores.resize(R * width, 0.0);
    running.clear();
    running.resize(tokens, Running { max: f32::NEG_INFINITY, sum: 0.0 });
    for first_key in (0..tokens).step_by(KEYS) {
        let count = KEYS.min(tokens - first_key);
        transpose_keys(head, first_key, count, width, keys);
        let tile = Tile { keys, values: head.values_from(first_key), count, width };
        for (group, running) in running.chunks_mut(R).enumerate() {
            let first = group * R;
            score::<T, R>(head, first, tile, scores);
            let mut keep = [0.0; R];
            for ((row, running), keep) in
                scores.chunks_exact_mut(width).zip(running.iter_mut()).zip(&mut keep)
            {
                *keep =
                    soften::<T>(&mut row[..count.next_multiple_of(LANES)], running, head.scale());
            }
            let group = Group { scores, keep: &keep[..running.len()], first };
            weigh::<T, R>(head, group, tile, out);
        }
    }
    for (token, running) in running.iter().enumerate() {
        let inverse = 1.0 / running.sum;
        for value in out.row(token) {
            *value *= inverse;
        }
    }
}

/// A query's softmax so far.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

/// Some keys, transposed, and their values.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// `[dim, width]`; columns from `count` on are left over from earlier work and never used.
    keys: &'a [f32],
    /// From the first of these tokens on, rows `3 * hidden` apart.
    values: &'a [f32],
    count: usize,
    width: usize,
}

/// A few queries: their exponentials `[rows, width]`, and what to keep of their sums so far.
#[derive(Clone, Copy)]
struct Group<'a> {
    scores: &'a [f32],
    keep: &'a [f32],
    first: usize,
}

#[inline(always)]
fn transpose_keys(head: Head<'_>, first: usize, count: usize, width: usize, keys: &mut [f32]) {
    for column in 0..count {
        for (keys, value) in keys.chunks_exact_mut(width).zip(head.row(KEY, first + column)) {
            keys[column] = *value;
        }
    }
}

/// `scores = q * transpose(k)` for the queries from `first` on. Past the last token the last one is repeated.
#[inline(always)]
fn score<T: Target, const R: usize>(
    head: Head<'_>,
    first: usize,
    tile: Tile<'_>,
    scores: &mut [f32],
) {
    let last = head.tokens() - 1;
    let mut queries = [head.row(QUERY, last); R];
    for (row, query) in queries.iter_mut().enumerate() {
        *query = head.row(QUERY, last.min(first + row));
    }
    let mut sums = [[0.0; COLUMNS_MAX]; R];
    let columns = 2 * T::WIDTH;
    for column in (0..tile.count).step_by(columns) {
        multiply::<T, R, 2>(queries, &tile.keys[column..], tile.width, head.dim, &mut sums);
        for (row, sums) in scores.chunks_exact_mut(tile.width).zip(&sums) {
            row[column..column + columns].copy_from_slice(&sums[..columns]);
        }
    }
    for row in scores.chunks_exact_mut(tile.width) {
        row[tile.count..tile.count.next_multiple_of(LANES)].fill(f32::NEG_INFINITY);
    }
}

/// Scores to exponentials under the running maximum. Returns the factor by which earlier sums shrink.
///
/// The row is whole lanes long; its end beyond the last key holds negative infinity, whose exponential is
/// too small to change a sum that the largest score adds 1 to.
#[inline(always)]
fn soften<T: Target>(row: &mut [f32], running: &mut Running, scale: f32) -> f32 {
    let (chunks, _) = row.as_chunks_mut::<LANES>();
    let mut lanes = [running.max; LANES];
    for chunk in &*chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let max = largest_lane(lanes);
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (value, lane) in chunk.iter_mut().zip(&mut lanes) {
            *value = exp::<T>((*value - max) * scale);
            *lane += *value;
        }
    }
    let keep = exp::<T>((running.max - max) * scale);
    *running = Running { max, sum: running.sum * keep + sum_lanes(lanes) };
    keep
}

/// `out = out * keep + exponentials * values` for a group of queries.
#[inline(always)]
fn weigh<T: Target, const R: usize>(
    head: Head<'_>,
    group: Group<'_>,
    tile: Tile<'_>,
    out: &mut Block<'_>,
) {
    let mut rows = [group.scores; R];
    for (row, scores) in rows.iter_mut().zip(group.scores.chunks_exact(tile.width)) {
        *row = scores;
    }
    let stride = 3 * head.hidden;
    let mut sums = [[0.0; COLUMNS_MAX]; R];
    let mut column = 0;
    while column < head.dim {
        let values = &tile.values[column..];
        let columns = match head.dim - column {
            rest if rest >= 2 * T::WIDTH => {
                multiply::<T, R, 2>(rows, values, stride, tile.count, &mut sums);
                2 * T::WIDTH
            }
            rest if rest >= T::WIDTH => {
                multiply::<T, R, 1>(rows, values, stride, tile.count, &mut sums);
                T::WIDTH
            }
            _ => {
                multiply_column::<T, R>(rows, values, stride, tile.count, &mut sums);
                1
            }
        };
        for (row, (sums, keep)) in sums.iter().zip(group.keep).enumerate() {
            let out = &mut out.row(group.first + row)[column..column + columns];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = T::mul_add(*out, *keep, *sum);
            }
        }
        column += columns;
    }
}
