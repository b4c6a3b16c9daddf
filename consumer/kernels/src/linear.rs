//! `linear`: one tall product for all packed tokens, with what follows it applied before a value is stored.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = activation(x * transpose(weight) + bias)` |
//! | shapes | `x`: `[tokens, in]`; `weight`: `[out, in]`, as checkpoints store it; `bias`: `[out]`; `y`: `[tokens, out]` |
//! | dtype | f32 |
//! | numerics | products fused where the processor can, summed in f32 in the order of `in`; GELU is the exact one (erf), its absolute error at most 3e-7 times its input |
//! | source | Hendrycks and Gimpel 2016 (GELU); Goto and van de Geijn 2008 (panels sized for caches) |
//!
//! The weight is packed once, when the layer is made: panels of [`PANEL`] outputs, each `[in, PANEL]`, the
//! last one filled up with zeros. A task takes a chunk of rows through some of the panels; while a panel is in
//! the second cache, the rows pass it a few at a time, and every sum stays in registers from the first input
//! to the bias and the activation.
#![allow(unsafe_code)]

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::KernelError;
use crate::block::{Block, Columns};
use crate::math::gelu;
use crate::operand::{Operand, borrow, values};
use crate::product::{COLUMNS_MAX, multiply};
use crate::simd::{Isa, Target, dispatched};

const OP: &str = "linear";
/// Outputs a panel.
const PANEL: usize = COLUMNS_MAX;
/// Bytes of `x` a task takes through the panels: with a panel beside it, it stays in a second cache of 1 MiB.
const CHUNK_BYTES: usize = 512 * 1024;
/// Chunks are whole groups of rows, for any number of rows that a target keeps in registers.
const CHUNK_ROWS_STEP: usize = 12;

/// What is applied to each value of the product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The exact (erf) GELU.
    Gelu,
}

/// A linear layer: its packed weight, its bias and its activation.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[panels, in, PANEL]`.
    packed: Tensor,
    bias: Option<Tensor>,
    activation: Activation,
    outputs: usize,
}

impl Linear {
    /// Packs `weight` `[out, in]`. `bias`: `[out]`.
    pub fn new(
        weight: &Tensor,
        bias: Option<Tensor>,
        activation: Activation,
    ) -> Result<Self, KernelError> {
        let operand = Operand { op: OP, name: "weight", tensor: weight };
        let (outputs, inputs) = operand.matrix()?;
        if inputs == 0 {
            return Err(operand.shape_error("at least one input".to_owned()));
        }
        if let Some(bias) = &bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[outputs])?;
        }
        let packed = pack(&weight.flatten_all()?.to_vec1()?, outputs, inputs);
        let packed =
            Tensor::from_vec(packed, (outputs.div_ceil(PANEL), inputs, PANEL), weight.device())?;
        Ok(Self { packed, bias, activation, outputs })
    }

    /// `x`: `[tokens, in]`; gives `[tokens, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (_, width) = operand.matrix()?;
        let inputs = self.packed.dims()[1];
        if width != inputs {
            return Err(operand.shape_error(format!("[tokens, {inputs}], as wide as the weight")));
        }
        Ok(x.apply_op2_no_bwd(&self.packed, self)?)
    }
}

/// `[panels, inputs, PANEL]` from `[outputs, inputs]`.
fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut packed = vec![0.0; outputs.div_ceil(PANEL) * inputs * PANEL];
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let panel = &mut packed[output / PANEL * inputs * PANEL..][..inputs * PANEL];
        for (columns, value) in panel.chunks_exact_mut(PANEL).zip(row) {
            columns[output % PANEL] = *value;
        }
    }
    packed
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, packed) = (values(x, x_layout)?, values(packed, packed_layout)?);
        let (tokens, inputs, outputs) = (x_layout.dims()[0], x_layout.dims()[1], self.outputs);
        let bias = self.bias.as_ref().map(borrow);
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        let isa = Isa::best();
        let grid = Grid::new(tokens, inputs, packed_layout.dims()[0]);
        let mut out = vec![0.0; tokens * outputs];
        let columns = Columns::new(&mut out, outputs);
        (0..grid.tasks()).into_par_iter().for_each(|task| {
            let (rows, panels) = grid.task(task);
            let (first, last) = (panels.start * PANEL, outputs.min(panels.end * PANEL));
            let weights = Weights {
                panels: &packed[panels.start * inputs * PANEL..panels.end * inputs * PANEL],
                bias: bias.map(|bias| &bias[first..last]),
                activation: self.activation,
                inputs,
            };
            // SAFETY: each task of the grid has its own rows or its own columns of the output.
            let mut out = unsafe { columns.block(rows.start, rows.len(), first, last - first) };
            layer(isa, &x[rows.start * inputs..rows.end * inputs], weights, &mut out);
        });
        Ok((CpuStorage::F32(out), (tokens, outputs).into()))
    }
}

/// How rows and panels are dealt out: chunks of rows, and where these are too few for the threads, the panels
/// in parts as well.
struct Grid {
    rows: usize,
    rows_per_chunk: usize,
    panels: usize,
    panels_per_part: usize,
}

impl Grid {
    fn new(rows: usize, inputs: usize, panels: usize) -> Self {
        let threads = rayon::current_num_threads();
        let rows_max = (CHUNK_BYTES / size_of::<f32>() / inputs).max(1);
        let rounds = rows.div_ceil(threads * rows_max).max(1);
        let rows_per_chunk =
            rows.div_ceil(threads * rounds).max(1).next_multiple_of(CHUNK_ROWS_STEP);
        let parts = threads.div_ceil(rows.div_ceil(rows_per_chunk).max(1));
        Self { rows, rows_per_chunk, panels, panels_per_part: panels.div_ceil(parts).max(1) }
    }

    fn parts(&self) -> usize {
        self.panels.div_ceil(self.panels_per_part)
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_chunk) * self.parts()
    }

    fn task(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let row = task / self.parts() * self.rows_per_chunk;
        let panel = task % self.parts() * self.panels_per_part;
        let rows = row..self.rows.min(row + self.rows_per_chunk);
        (rows, panel..self.panels.min(panel + self.panels_per_part))
    }
}

/// Some panels of a layer with their part of the bias.
#[derive(Clone, Copy)]
struct Weights<'a> {
    panels: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    inputs: usize,
}

dispatched! {
    /// A chunk of rows through some panels: `out` has a column for each output of the panels.
    fn layer(x: &[f32], weights: Weights<'_>, out: &mut Block<'_>) = pass;
}

#[inline(always)]
fn pass<T: Target>(x: &[f32], weights: Weights<'_>, out: &mut Block<'_>) {
    // As many sums as registers hold beside the operands: 24 of 32, or 12 of 16.
    if T::MANY {
        pass_rows::<T, 12>(x, weights, out);
    } else {
        pass_rows::<T, 6>(x, weights, out);
    }
}

/// `R` rows at a time.
#[inline(always)]
fn pass_rows<T: Target, const R: usize>(x: &[f32], weights: Weights<'_>, out: &mut Block<'_>) {
    let inputs = weights.inputs;
    let columns = 2 * T::WIDTH;
    let mut sums = [[0.0; COLUMNS_MAX]; R];
    for column in (0..out.width()).step_by(columns) {
        let panel = &weights.panels[column / PANEL * inputs * PANEL + column % PANEL..];
        let width = columns.min(out.width() - column);
        for first in (0..out.rows()).step_by(R) {
            let last = out.rows() - 1;
            // Past the last row it is repeated.
            let mut rows = [x; R];
            for (row, values) in rows.iter_mut().enumerate() {
                *values = &x[last.min(first + row) * inputs..];
            }
            multiply::<T, R, 2>(rows, panel, PANEL, inputs, &mut sums);
            let bias = weights.bias.map(|bias| &bias[column..column + width]);
            for (row, sums) in sums.iter_mut().take(out.rows() - first).enumerate() {
                let out = &mut out.row(first + row)[column..column + width];
                // In the first branch the compiler knows how long the row is.
                if width == columns {
                    finish::<T>(&mut sums[..columns], bias, weights.activation, out);
                } else {
                    finish::<T>(&mut sums[..width], bias, weights.activation, out);
                }
            }
        }
    }
}

/// Bias and activation.
#[inline(always)]
fn finish<T: Target>(
    sums: &mut [f32],
    bias: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
) {
    if let Some(bias) = bias {
        for (sum, bias) in sums.iter_mut().zip(bias) {
            *sum += bias;
        }
    }
    if activation == Activation::Gelu {
        for sum in sums.iter_mut() {
            *sum = gelu::<T>(*sum);
        }
    }
    out.copy_from_slice(sums);
}
