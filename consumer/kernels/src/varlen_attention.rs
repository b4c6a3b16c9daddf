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

use std::marker::PhantomData;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::math::{LANES, exp};
use crate::operand::{Operand, values};
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
    // As many sums as registers hold beside the operands: 16 of 32, or 8 of 16.
    if T::WIDE {
        attend_tiled::<T, 8, 32>(head, out, scratch);
    } else {
        attend_tiled::<T, 4, 16>(head, out, scratch);
    }
}

/// Queries `R` at a time against tiles of keys; products `C` columns at a time.
#[inline(always)]
fn attend_tiled<T: Target, const R: usize, const C: usize>(
    head: Head<'_>,
    out: &mut Block<'_>,
    scratch: &mut Scratch,
) {
    let tokens = head.tokens();
    let width = tokens.min(KEYS).next_multiple_of(C);
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
            score::<T, R, C>(head, first, tile, scores);
            let mut keep = [0.0; R];
            for ((row, running), keep) in
                scores.chunks_exact_mut(width).zip(running.iter_mut()).zip(&mut keep)
            {
                *keep = soften::<T>(&mut row[..count], running, head.scale());
            }
            let group = Group { scores, keep: &keep[..running.len()], first };
            weigh::<T, R, C>(head, group, tile, out);
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
fn score<T: Target, const R: usize, const C: usize>(
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
    for column in (0..tile.count).step_by(C) {
        let sums = multiply::<T, R, C>(queries, &tile.keys[column..], tile.width, head.dim);
        for (row, sums) in scores.chunks_exact_mut(tile.width).zip(&sums) {
            row[column..column + C].copy_from_slice(sums);
        }
    }
}

/// Scores to exponentials under the running maximum. Returns the factor by which earlier sums shrink.
#[inline(always)]
fn soften<T: Target>(row: &mut [f32], running: &mut Running, scale: f32) -> f32 {
    let max = largest(row, running.max);
    let mut lanes = [0.0; LANES];
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (value, lane) in chunk.iter_mut().zip(&mut lanes) {
            *value = exp::<T>((*value - max) * scale);
            *lane += *value;
        }
    }
    for (value, lane) in tail.iter_mut().zip(&mut lanes) {
        *value = exp::<T>((*value - max) * scale);
        *lane += *value;
    }
    let keep = exp::<T>((running.max - max) * scale);
    *running = Running { max, sum: running.sum * keep + lanes.iter().sum::<f32>() };
    keep
}

#[inline(always)]
fn largest(row: &[f32], start: f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *lane = if *value > *lane { *value } else { *lane };
    }
    lanes.iter().fold(start, |max, lane| max.max(*lane))
}

/// `out = out * keep + exponentials * values` for a group of queries.
#[inline(always)]
fn weigh<T: Target, const R: usize, const C: usize>(
    head: Head<'_>,
    group: Group<'_>,
    tile: Tile<'_>,
    out: &mut Block<'_>,
) {
    let mut column = 0;
    while column + C <= head.dim {
        weigh_columns::<T, R, C>(head, group, tile, out, column);
        column += C;
    }
    while column < head.dim {
        weigh_columns::<T, R, 1>(head, group, tile, out, column);
        column += 1;
    }
}

#[inline(always)]
fn weigh_columns<T: Target, const R: usize, const C: usize>(
    head: Head<'_>,
    group: Group<'_>,
    tile: Tile<'_>,
    out: &mut Block<'_>,
    column: usize,
) {
    let mut rows = [group.scores; R];
    for (row, scores) in rows.iter_mut().zip(group.scores.chunks_exact(tile.width)) {
        *row = scores;
    }
    let sums = multiply::<T, R, C>(rows, &tile.values[column..], 3 * head.hidden, tile.count);
    for (row, (sums, keep)) in sums.iter().zip(group.keep).enumerate() {
        let out = &mut out.row(group.first + row)[column..column + C];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = T::mul_add(*out, *keep, *sum);
        }
    }
}

/// `R` rows of `depth` values by the first `C` columns of a matrix of `depth` rows, `stride` apart. All sums
/// stay in registers.
#[inline(always)]
fn multiply<T: Target, const R: usize, const C: usize>(
    rows: [&[f32]; R],
    matrix: &[f32],
    stride: usize,
    depth: usize,
) -> [[f32; C]; R] {
    let mut sums = [[0.0; C]; R];
    for index in 0..depth {
        let columns = &matrix[index * stride..][..C];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let value = row[index];
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = T::mul_add(value, *column, *sum);
            }
        }
    }
    sums
}

/// A matrix that tasks write disjoint blocks of.
struct Columns<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a mutable borrow of plain values, used only through `block`, whose callers promise that
// no two blocks overlap.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// The whole of `matrix`, its rows `stride` long.
    fn new(matrix: &'a mut [f32], stride: usize) -> Self {
        Self { start: matrix.as_mut_ptr(), len: matrix.len(), stride, matrix: PhantomData }
    }

    /// `rows` rows of `width` values, from that row and column on.
    ///
    /// # Safety
    /// No other block that is alive may share a value with this one.
    unsafe fn block(&self, row: usize, rows: usize, column: usize, width: usize) -> Block<'a> {
        assert!(column + width <= self.stride && (row + rows) * self.stride <= self.len);
        // SAFETY: the first value of the block, or one past the last row when it has no rows.
        let start =
            unsafe { self.start.add(row * self.stride + if rows == 0 { 0 } else { column }) };
        Block { start, rows, width, stride: self.stride, matrix: PhantomData }
    }
}

/// Some columns of some rows of a matrix.
struct Block<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

impl Block<'_> {
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: `Columns::block` checked that all rows of the block lie inside the matrix, and no other
        // block shares them; the borrow of `self` keeps this block's own rows from being borrowed twice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}
