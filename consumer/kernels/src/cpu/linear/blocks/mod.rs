//! Linear layers of weights in blocks, `ops::blocks`.
//!
//! All rows are quantized first, each once, shared among the threads; then tasks take rows through panels.
#![allow(unsafe_code)]

mod format;
mod multiply;
mod quantize;

use std::cell::RefCell;

pub(crate) use self::format::pack;
pub(super) use self::format::weights_of;
use self::multiply::{AHEAD, ROWS_MAX, Task, multiply};
use self::quantize::{Inputs, quantize};
use super::grid::Grid;
use crate::cpu::activation::activate;
use crate::cpu::block::{Block, Columns};
use crate::cpu::element::{Element, store};
use crate::cpu::gemm::PANEL;
use crate::cpu::parallel::{for_each, threads};
use crate::cpu::scratch::sized;
use crate::cpu::simd::{Isa, Target, dispatched};
use crate::ops::activation::Activation;
use crate::ops::blocks::BLOCK;
use crate::ops::linear::{BlockFormat, Linear};

thread_local! {
    /// A thread's quantized rows. They are taken out while the thread works: one that waits for others may be given
    /// another layer to compute meanwhile.
    static INPUTS: RefCell<Vec<Inputs>> = const { RefCell::new(Vec::new()) };
}

/// Rows of a quantizing task: too few to hand over by themselves.
const ROWS_PER_TASK: usize = 8;

pub(super) fn run<X: Element, Y: Element>(
    op: &Linear,
    x: &[X],
    packed: &[u8],
    format: BlockFormat,
    bias: Option<&[f32]>,
    out: &mut [Y],
) {
    let outputs = op.outputs();
    let depth = op.inputs() / BLOCK;
    let rows = x.len() / op.inputs();
    let isa = Isa::best();
    let mut memory = INPUTS.take();
    let inputs = sized(&mut memory, rows * depth);
    quantize_shared(isa, x, depth, inputs);
    let panels = &packed[format.skipped..];
    let panel_bytes = depth * format.bytes();
    let grid = Grid::new(rows, depth * size_of::<Inputs>(), outputs.div_ceil(PANEL));
    let columns = Columns::new(out, outputs);
    for_each(grid.tasks(), |task| {
        let (rows, taken) = grid.task(task);
        let first = taken.start * PANEL;
        let last = outputs.min(taken.end * PANEL);
        let panels = Panels {
            bytes: &panels[taken.start * panel_bytes..taken.end * panel_bytes],
            panel_bytes,
            format,
            bias: bias.map(|bias| &bias[first..last]),
            activation: op.activation,
        };
        // SAFETY: each task of the grid has its own rows or its own columns of the output.
        let mut out = unsafe { columns.block(rows.start, rows.len(), first, last - first) };
        layer::<Y>(isa, isa, &inputs[rows.start * depth..rows.end * depth], panels, &mut out);
    });
    INPUTS.set(memory);
}

/// Quantizes all rows, shared among the threads.
fn quantize_shared<E: Element>(isa: Isa, x: &[E], depth: usize, inputs: &mut [Inputs]) {
    let rows = inputs.len() / depth;
    let per_task = rows.div_ceil(threads()).max(ROWS_PER_TASK);
    let matrix = Columns::new(inputs, depth);
    for_each(rows.div_ceil(per_task), |task| {
        let rows = task * per_task..rows.min((task + 1) * per_task);
        let width = depth * BLOCK;
        // SAFETY: each task has its own rows.
        let inputs = unsafe { matrix.rows(rows.clone()) };
        quantize(isa, &x[rows.start * width..rows.end * width], inputs);
    });
}

/// Some panels of a layer with their part of the bias.
#[derive(Clone, Copy)]
struct Panels<'a> {
    bytes: &'a [u8],
    panel_bytes: usize,
    format: BlockFormat,
    bias: Option<&'a [f32]>,
    activation: Activation,
}

dispatched! {
    /// Rows through some panels: `out` has a column for each output of the panels.
    fn layer<E>(isa_of_sums: Isa, rows: &[Inputs], panels: Panels<'_>, out: &mut Block<'_, E>) = pass;
}

#[inline(always)]
fn pass<T: Target, E: Element>(
    isa: Isa,
    rows: &[Inputs],
    panels: Panels<'_>,
    out: &mut Block<'_, E>,
) {
    let depth = rows.len() / out.rows().max(1);
    let mut sums = [0.0; ROWS_MAX * PANEL];
    for (panel, bytes) in panels.bytes.chunks_exact(panels.panel_bytes).enumerate() {
        let column = panel * PANEL;
        let width = PANEL.min(out.width() - column);
        let mut start = [0.0; PANEL];
        if let Some(bias) = panels.bias {
            start[..width].copy_from_slice(&bias[column..column + width]);
        }
        let mut first = 0;
        while first < out.rows() {
            let left = out.rows() - first;
            // Of one size, as nearly as they can be: a panel is unpacked once a group.
            let count = left.div_ceil(left.div_ceil(ROWS_MAX));
            let sums = &mut sums[..count * PANEL];
            let rows = &rows[first * depth..(first + count) * depth];
            // The last group, if the panel is in cache by then, fetches the next panel from memory.
            let ahead = match (first, left) {
                (0, _) => AHEAD,
                (_, left) if left == count => panels.panel_bytes,
                _ => 0,
            };
            let format = panels.format;
            let task = Task { rows, count, format, panel: bytes, start: &start, ahead };
            multiply(isa, task, sums);
            activate::<T, E>(panels.activation, sums);
            let mut out = out.part(first..first + count, column..column + width);
            for (row, sums) in sums.chunks_exact(PANEL).enumerate() {
                // In the first branch the compiler knows how long the row is.
                if width == PANEL {
                    store(sums, &mut out.row(row)[..PANEL]);
                } else {
                    store(&sums[..width], out.row(row));
                }
            }
            first += count;
        }
    }
}
