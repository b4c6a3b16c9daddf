//! `paged_attention` on the processor.
//!
//! A task is some new tokens of one sequence under one head of keys: its rows are the queries of all heads that share
//! those keys. It takes the keys in tiles of [`KEYS`], and while a tile's pages are in L2 cache its rows pass them a
//! few at a time: scores, exponentials and the matrix product with the values happen while those rows' scores are in L1
//! cache. What a query gets of a tile does not depend on other tiles or rows, and tiles are added in their order.
#![allow(unsafe_code)]

mod softmax;

use candle_core::Result;

use self::softmax::{Exponents, Partial, softmax_tile};
use super::block::{Block, Columns};
use super::element::{Element, by_dtype};
use super::gemm::{
    PANEL, PanelOf, ROWS_MAX, RowsOf, columns_at_once, multiply, multiply_onto, rows_at_once,
};
use super::page::{PageLayout, VALUE_PANEL};
use super::parallel::{for_each, threads};
use super::scratch::{Scratch, sized};
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::paged_attention::{Operands, PagedAttention};
use crate::ops::pages::PAGE_TOKENS;
use crate::ops::step_rows::first_seen;

/// Keys a tile: whole pages. With twelve queries their scores take 24 KiB. It decides how sums are rounded, so on
/// one machine or another, today or after an update, it is the same.
const KEYS: usize = 512;
/// Rows a task: with fewer, a tile's pages are read more often from beyond L2 cache; with more, there are fewer tasks.
const ROWS_TASK: usize = 8 * ROWS_MAX;

pub(super) fn paged_attention(
    op: &PagedAttention<'_>,
    Operands { qkv, pages, out }: Operands<'_>,
) -> Result<()> {
    let sinks = op.sinks.map(borrow);
    let sinks = sinks.as_ref().map(|sinks| sinks.values()).transpose()?;
    let layout = PageLayout::of(pages);
    let width = qkv.dims()[1];
    let qkv = borrow(qkv);
    let store = borrow(&pages.store);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let inputs = Inputs { qkv: qkv.values::<E>()?, width, store: store.values()?, sinks };
            run(op, layout, inputs, out.values()?);
        });
        Ok(())
    })
}

/// All that is read.
#[derive(Clone, Copy)]
struct Inputs<'a, E> {
    qkv: &'a [E],
    /// Of a row of `qkv`.
    width: usize,
    store: &'a [E],
    sinks: Option<&'a [f32]>,
}

fn run<E: Element>(
    op: &PagedAttention<'_>,
    layout: PageLayout,
    inputs: Inputs<'_, E>,
    out: &mut [E],
) {
    let group = op.heads / op.kv_heads;
    let exponents = Exponents::new(op.scale(layout.dim), op.soft_cap);
    let isa = Isa::best();
    let tokens = (ROWS_TASK / group).max(1);
    let mut chunks = Vec::with_capacity(op.rows.sequences().len());
    for (sequence, range) in op.rows.cu_seqlens().ranges().enumerate() {
        chunks.extend(range.clone().step_by(tokens).map(|first| (sequence, first)));
    }
    let heads = heads_per_task(group, chunks.len() * op.kv_heads, layout);
    let parts = group.div_ceil(heads);
    let out = Columns::new(out, op.heads * layout.value_dim);
    for_each(chunks.len() * op.kv_heads * parts, |task| {
        let (index, first) = chunks[task / (op.kv_heads * parts)];
        let kv_head = task / parts % op.kv_heads;
        let within = task % parts * heads..group.min((task % parts + 1) * heads);
        let range = op.rows.cu_seqlens().range(index);
        let tokens = tokens.min(range.end - first);
        let sequence = op.rows.sequences()[index];
        let head = kv_head * group + within.start;
        let rows = Rows {
            queries: &inputs.qkv[first * inputs.width + head * layout.dim..],
            stride: inputs.width,
            tokens,
            group: within.len(),
            position: sequence.position + first - range.start,
            window: op.window,
            end: op.is_bidirectional.then_some(range.len()),
        };
        let sinks = inputs.sinks.map(|sinks| &sinks[head..][..within.len()]);
        let keys = Keys { store: inputs.store, table: sequence.pages, layout, kv_head };
        let [column, width] = [head, within.len()].map(|heads| heads * layout.value_dim);
        // SAFETY: each task has its own tokens (rows) or its own heads (columns) of the output.
        let mut out = unsafe { out.block(first, tokens, column, width) };
        let softmax = Softmax { exponents, sinks };
        E::with_scratch(|scratch| attend_rows(isa, rows, keys, softmax, &mut out, scratch));
    });
}

/// How many of the heads that share keys a task takes, where there would be so many tasks with all of them. Latent
/// attention has one head of keys: with few sequences, its heads of queries are dealt out to the threads.
fn heads_per_task(group: usize, tasks: usize, layout: PageLayout) -> usize {
    if !layout.is_latent {
        return group;
    }
    group.div_ceil(threads().div_ceil(tasks.max(1))).next_multiple_of(ROWS_MAX).min(group)
}

/// The queries of a task: of each token those of the heads that share keys.
#[derive(Clone, Copy)]
struct Rows<'a, E> {
    /// The first token's.
    queries: &'a [E],
    /// From one token's to the next's.
    stride: usize,
    tokens: usize,
    /// Heads that share keys.
    group: usize,
    /// Of the first token.
    position: usize,
    window: Option<usize>,
    /// Where the sequence ends, if later keys are seen too.
    end: Option<usize>,
}

impl<E: Copy> Rows<'_, E> {
    fn count(self) -> usize {
        self.tokens * self.group
    }

    /// The position of a row's token.
    #[inline(always)]
    fn position(self, row: usize) -> usize {
        self.position + row / self.group
    }

    /// The first position that a row sees.
    #[inline(always)]
    fn first_seen(self, row: usize) -> usize {
        first_seen(self.position(row), self.window)
    }

    /// The position after the last that a row sees.
    #[inline(always)]
    fn seen_end(self, row: usize) -> usize {
        let position = self.position(row);
        match (self.end, self.window) {
            (None, _) => position + 1,
            (Some(end), None) => end,
            (Some(end), Some(window)) => end.min(position.saturating_add(window)),
        }
    }
}

/// One sequence's keys and values of one head.
#[derive(Clone, Copy)]
struct Keys<'a, E> {
    store: &'a [E],
    table: &'a [u32],
    layout: PageLayout,
    kv_head: usize,
}

impl<'a, E: Copy> Keys<'a, E> {
    /// This head's part of the page that holds the tokens from `index * PAGE_TOKENS` on.
    #[inline(always)]
    fn page(self, index: usize) -> &'a [E] {
        let at =
            self.table[index] as usize * self.layout.page() + self.kv_head * self.layout.head();
        &self.store[at..at + self.layout.head()]
    }

    /// Where the page after that begins, to be fetched; past the last one, anywhere.
    #[inline(always)]
    fn next(self, index: usize, offset: usize) -> *const u8 {
        let page = self.table.get(index + 1).copied().unwrap_or_default() as usize;
        let at = page * self.layout.page() + self.kv_head * self.layout.head() + offset;
        self.store.as_ptr().wrapping_add(at).cast()
    }
}

/// Panels of a page's values: in `transposed`, where pages hold none.
#[inline(always)]
fn values_of<'a, E: Element>(transposed: &'a [E], keys: Keys<'a, E>, page: usize) -> &'a [E] {
    let layout = keys.layout;
    if !layout.is_latent {
        return &keys.page(page)[layout.keys()..];
    }
    let len = PAGE_TOKENS * layout.dims();
    &transposed[page % (KEYS / PAGE_TOKENS) * len..][..len]
}

/// How scores become probabilities.
#[derive(Clone, Copy)]
struct Softmax<'a> {
    exponents: Exponents,
    /// Of the heads that share keys.
    sinks: Option<&'a [f32]>,
}

dispatched! {
    /// One task.
    fn attend_rows<E>(
        rows: Rows<'_, E>,
        keys: Keys<'_, E>,
        softmax: Softmax<'_>,
        out: &mut Block<'_, E>,
        scratch: &mut Scratch<E>,
    ) = attend;
}

#[inline(always)]
fn attend<T: Target, E: Element>(
    rows: Rows<'_, E>,
    keys: Keys<'_, E>,
    softmax: Softmax<'_>,
    out: &mut Block<'_, E>,
    scratch: &mut Scratch<E>,
) {
    let dim = keys.layout.dim;
    let dims = keys.layout.dims();
    let count = rows.count();
    let queries = sized(&mut scratch.queries, count * dim);
    let tokens = queries.chunks_exact_mut(rows.group * dim).enumerate();
    for (token, queries) in tokens {
        queries.copy_from_slice(&rows.queries[token * rows.stride..][..rows.group * dim]);
    }
    let (sums, tile_sums) =
        sized(&mut scratch.sums, (count + ROWS_MAX) * dims).split_at_mut(count * dims);
    sums.fill(0.0);
    let (floats, scores) =
        sized(&mut scratch.floats, 2 * count + ROWS_MAX * KEYS).split_at_mut(2 * count);
    let (partials, _) = floats.as_chunks_mut::<2>();
    for (row, partial) in partials.iter_mut().enumerate() {
        let start = softmax.sinks.map_or(Partial::NONE, |s| Partial::of_sink(s[row % rows.group]));
        *partial = [start.max, start.sum];
    }
    let probabilities = sized(&mut scratch.probabilities, ROWS_MAX * KEYS);
    let values = sized(&mut scratch.values, if keys.layout.is_latent { KEYS * dims } else { 0 });
    let exponents = softmax.exponents;
    let mut work = Work {
        rows,
        keys,
        exponents,
        queries,
        scores,
        probabilities,
        values,
        sums,
        tile_sums,
        partials,
    };
    let end = rows.seen_end(count - 1);
    for tile in (rows.first_seen(0) / KEYS * KEYS..end).step_by(KEYS) {
        if keys.layout.is_latent {
            work.transpose(tile, end);
        }
        let mut first = 0;
        while first < count {
            let rows = rows_at_once::<T>(count - first);
            work.group::<T>(first, rows, tile);
            first += rows;
        }
    }
    work.finish(out);
}

/// A task at work.
struct Work<'a, E> {
    rows: Rows<'a, E>,
    keys: Keys<'a, E>,
    exponents: Exponents,
    /// `[rows, dim]`
    queries: &'a [E],
    /// `[ROWS_MAX, KEYS]`
    scores: &'a mut [f32],
    /// `[ROWS_MAX, KEYS]`
    probabilities: &'a mut [E],
    /// Panels of a tile's values, where they are not in its pages.
    values: &'a mut [E],
    /// `[rows, dims]`: values weighed so far; `dims` is a token's values rounded up to whole panels.
    sums: &'a mut [f32],
    /// `[ROWS_MAX, dims]`: values of one tile.
    tile_sums: &'a mut [f32],
    /// Of each row its largest exponent and its sum.
    partials: &'a mut [[f32; 2]],
}

impl<E: Element> Work<'_, E> {
    /// Makes panels of the values that rows see of a tile, which are the first values of its keys.
    #[inline(always)]
    fn transpose(&mut self, tile: usize, end: usize) {
        let layout = self.keys.layout;
        let begin = tile.max(self.rows.first_seen(0)) / PAGE_TOKENS;
        for page in begin..(tile + KEYS).min(end).div_ceil(PAGE_TOKENS) {
            let at = (page - tile / PAGE_TOKENS) * PAGE_TOKENS * layout.dims();
            let values = &mut self.values[at..][..PAGE_TOKENS * layout.dims()];
            PageLayout::transpose(self.keys.page(page), values);
        }
    }

    /// `count` rows from the one at `first` on, against those of the tile's keys that any of them sees.
    #[inline(always)]
    fn group<T: Target>(&mut self, first: usize, count: usize, tile: usize) {
        let begin = tile.max(self.rows.first_seen(first) / PAGE_TOKENS * PAGE_TOKENS);
        let end = (tile + KEYS).min(self.rows.seen_end(first + count - 1));
        if begin >= end {
            return;
        }
        let pages = begin / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS);
        let columns = pages.len() * PAGE_TOKENS;
        self.score::<T>(first, count, pages.clone());
        let mut tiles = [Partial::NONE; ROWS_MAX];
        for (row, partial) in tiles[..count].iter_mut().enumerate() {
            let seen = self.rows.first_seen(first + row)..self.rows.seen_end(first + row);
            let seen = seen.start.clamp(begin, end) - begin..seen.end.clamp(begin, end) - begin;
            let scores = &mut self.scores[row * KEYS..][..columns];
            let probabilities = &mut self.probabilities[row * KEYS..][..columns];
            *partial = softmax_tile::<T, E>(scores, seen, self.exponents, probabilities);
        }
        self.weigh::<T>(count, pages);
        let dims = self.keys.layout.dims();
        for (row, tile) in tiles[..count].iter().enumerate() {
            let [max, sum] = self.partials[first + row];
            let mut partial = Partial { max, sum };
            let [before, here] = partial.add::<T>(*tile);
            self.partials[first + row] = [partial.max, partial.sum];
            let sums = &mut self.sums[(first + row) * dims..][..dims];
            for (sum, value) in sums.iter_mut().zip(&self.tile_sums[row * dims..][..dims]) {
                *sum = T::mul_add(*sum, before, value * here);
            }
        }
    }

    /// `scores = q * transpose(k)` for the keys of some pages.
    #[inline(always)]
    fn score<T: Target>(&mut self, first: usize, count: usize, pages: std::ops::Range<usize>) {
        let layout = self.keys.layout;
        let queries =
            RowsOf::new(&self.queries[first * layout.dim..], layout.dim, count, layout.dim);
        for (index, page) in pages.enumerate() {
            let values = &self.keys.page(page)[..layout.keys()];
            let next = self.keys.next(page, 0);
            for column in (0..PANEL).step_by(columns_at_once::<T>()) {
                let scores = &mut self.scores[index * PANEL + column..];
                let scores = Block::new(scores, count, columns_at_once::<T>(), KEYS);
                multiply::<T, E>(queries, PanelOf { values, column, start: None, next }, scores);
            }
        }
    }

    /// `tile_sums = probabilities * values` for the values of some pages, in the order of positions.
    #[inline(always)]
    fn weigh<T: Target>(&mut self, count: usize, pages: std::ops::Range<usize>) {
        let layout = self.keys.layout;
        let dims = layout.dims();
        let columns = columns_at_once::<T>();
        for (index, page) in pages.enumerate() {
            let probabilities = &self.probabilities[index * PAGE_TOKENS..];
            let probabilities = RowsOf::new(probabilities, KEYS, count, PAGE_TOKENS);
            let panels = values_of(self.values, self.keys, page);
            for (panel, values) in panels.chunks_exact(VALUE_PANEL).enumerate() {
                let next = self.keys.next(page, layout.keys() + panel * VALUE_PANEL);
                for column in (0..PANEL).step_by(columns) {
                    let sums = &mut self.tile_sums[panel * PANEL + column..];
                    let sums = Block::new(sums, count, columns, dims);
                    let panel = PanelOf { values, column, start: None, next };
                    if index == 0 {
                        multiply::<T, E>(probabilities, panel, sums);
                    } else {
                        multiply_onto::<T, E>(probabilities, panel, sums);
                    }
                }
            }
        }
    }

    /// Weighed values by their sums, to the output.
    #[inline(always)]
    fn finish(&self, out: &mut Block<'_, E>) {
        let layout = self.keys.layout;
        let rows = self.sums.chunks_exact(layout.dims()).zip(&*self.partials);
        for (row, (sums, [_, total])) in rows.enumerate() {
            let inverse = 1.0 / total;
            let column = row % self.rows.group * layout.value_dim;
            let out = &mut out.row(row / self.rows.group)[column..][..layout.value_dim];
            for (out, sum) in out.iter_mut().zip(sums) {
                // A sum of zero has the sign of what it was rounded from, which keys that are not seen can change.
                *out = E::narrow(sum * inverse + 0.0);
            }
        }
    }
}
