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
pub(super) use self::quantize::Inputs;
use self::quantize::quantize;
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

/// Runs `work` with rows of `x` quantized in blocks, `depth` of them each; with none where there is no depth.
pub(super) fn with_inputs<X: Element, R>(
    x: &[X],
    depth: Option<usize>,
    work: impl FnOnce(&[Inputs]) -> R,
) -> R {
    let Some(depth) = depth else { return work(&[]) };
    let mut memory = INPUTS.take();
    let inputs = sized(&mut memory, x.len() / BLOCK);
    quantize_shared(Isa::best(), x, depth, inputs);
    let result = work(inputs);
    INPUTS.set(memory);
    result
}

/// A layer of blocks with its quantized rows and where their results go, cut into tasks.
pub(super) struct Work<'a, Y> {
    op: &'a Linear,
    inputs: &'a [Inputs],
    panels: &'a [u8],
    format: BlockFormat,
    bias: Option<&'a [f32]>,
    grid: Grid,
    columns: Columns<'a, Y>,
}

impl<'a, Y: Element> Work<'a, Y> {
    pub(super) fn new(
        op: &'a Linear,
        inputs: &'a [Inputs],
        packed: &'a [u8],
        format: BlockFormat,
        bias: Option<&'a [f32]>,
        out: &'a mut [Y],
    ) -> Self {
        let depth = op.inputs() / BLOCK;
        let panels = op.outputs().div_ceil(PANEL);
        Self {
            op,
            inputs,
            panels: &packed[format.skipped..],
            format,
            bias,
            grid: Grid::new(inputs.len() / depth, depth * size_of::<Inputs>(), panels),
            columns: Columns::new(out, op.outputs()),
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.grid.tasks()
    }

    pub(super) fn run(&self, isa: Isa, task: usize) {
        let depth = self.op.inputs() / BLOCK;
        let panel_bytes = depth * self.format.bytes();
        let (rows, taken) = self.grid.task(task);
        let first = taken.start * PANEL;
        let last = self.op.outputs().min(taken.end * PANEL);
        let panels = Panels {
            bytes: &self.panels[taken.start * panel_bytes..taken.end * panel_bytes],
            panel_bytes,
            format: self.format,
            bias: self.bias.map(|bias| &bias[first..last]),
            activation: self.op.activation,
        };
        // SAFETY: each task of the grid has its own rows or its own columns of the output.
        let mut out = unsafe { self.columns.block(rows.start, rows.len(), first, last - first) };
        let inputs = &self.inputs[rows.start * depth..rows.end * depth];
        layer::<Y>(isa, isa, inputs, panels, &mut out);
    }
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
