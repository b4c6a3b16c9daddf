//! A layer's work as tasks, whatever its weight is packed as: of one layer, or of several that run side by side.
#![allow(unsafe_code)]

use std::ops::Deref;

use candle_core::{Result, Storage};

use super::blocks::{self, Inputs};
use super::grid::Grid;
use super::int8::{self, Panels};
use super::plain::{Weights, layer};
use crate::cpu::block::Columns;
use crate::cpu::element::{As, Element};
use crate::cpu::gemm::PANEL;
use crate::cpu::simd::Isa;
use crate::cpu::storage::{Borrowed, borrow};
use crate::ops::blocks::BLOCK;
use crate::ops::linear::{Linear, Scales};

/// A layer with its parameters borrowed.
pub(super) struct Layer<'a, S> {
    op: &'a Linear,
    packed: Borrowed<'a, S>,
    bias: Option<Borrowed<'a, S>>,
}

impl<'a> Layer<'a, ()> {
    pub(super) fn borrow(op: &'a Linear) -> Layer<'a, impl Deref<Target = Storage> + 'a> {
        Layer { op, packed: borrow(&op.weight.values), bias: op.bias().map(borrow) }
    }
}

impl<S: Deref<Target = Storage>> Layer<'_, S> {
    /// Blocks of a row of inputs; `None` where the weight is not in blocks.
    pub(super) fn depth(&self) -> Option<usize> {
        self.op.weight.blocks.map(|_| self.op.inputs() / BLOCK)
    }

    /// Its work for rows `x`, which are `inputs` where the weight is in blocks.
    pub(super) fn work<'w, X: Element, Y: Element>(
        &'w self,
        x: &'w [X],
        inputs: &'w [Inputs],
        out: &'w mut [Y],
    ) -> Result<Work<'w, X, Y>> {
        let Self { op, packed, bias } = self;
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        Ok(if let Some(format) = op.weight.blocks {
            let packed = packed.bytes()?;
            Work::Blocks(blocks::Work::new(op, inputs, packed, format, bias, out))
        } else if let Some(scales) = &op.weight.scales {
            Work::Int8(Tasks::new(op, x, packed.bytes()?, bias, out), scales)
        } else if op.weight.values.dtype() == op.dtype {
            Work::Plain(Tasks::new(op, x, packed.values()?, bias, out))
        } else {
            Work::Widened(Tasks::new(op, x, packed.values()?, bias, out))
        })
    }
}

/// The tasks of a layer. `X`: type of inputs; `Y`: of outputs.
pub(super) enum Work<'a, X, Y> {
    /// Of weights in the inputs' type.
    Plain(Tasks<'a, X, X, Y>),
    /// Of weights in f32, to which inputs are widened.
    Widened(Tasks<'a, f32, X, Y>),
    Int8(Tasks<'a, u8, X, Y>, &'a Scales),
    Blocks(blocks::Work<'a, Y>),
}

impl<X: Element + As<X> + As<f32>, Y: Element> Work<'_, X, Y> {
    pub(super) fn tasks(&self) -> usize {
        match self {
            Self::Plain(tasks) => tasks.grid.tasks(),
            Self::Widened(tasks) => tasks.grid.tasks(),
            Self::Int8(tasks, _) => tasks.grid.tasks(),
            Self::Blocks(work) => work.tasks(),
        }
    }

    pub(super) fn run(&self, isa: Isa, task: usize) {
        match self {
            Self::Plain(tasks) => tasks.run(isa, task),
            Self::Widened(tasks) => tasks.run(isa, task),
            Self::Int8(tasks, scales) => tasks.run_int8(isa, task, scales),
            Self::Blocks(work) => work.run(isa, task),
        }
    }
}

/// Rows through panels. `P`: type of the packed weight.
pub(super) struct Tasks<'a, P, X, Y> {
    op: &'a Linear,
    x: &'a [X],
    packed: &'a [P],
    bias: Option<&'a [f32]>,
    grid: Grid,
    columns: Columns<'a, Y>,
}

impl<'a, P, X: Element, Y: Element> Tasks<'a, P, X, Y> {
    fn new(
        op: &'a Linear,
        x: &'a [X],
        packed: &'a [P],
        bias: Option<&'a [f32]>,
        out: &'a mut [Y],
    ) -> Self {
        let inputs = op.inputs();
        let panels = op.outputs().div_ceil(PANEL);
        let grid = Grid::new(x.len() / inputs, inputs * size_of::<P>(), panels);
        Self { op, x, packed, bias, grid, columns: Columns::new(out, op.outputs()) }
    }
}

impl<P: Element, X: Element + As<P>, Y: Element> Tasks<'_, P, X, Y> {
    fn run(&self, isa: Isa, task: usize) {
        let inputs = self.op.inputs();
        let (rows, panels) = self.grid.task(task);
        let first = panels.start * PANEL;
        let last = self.op.outputs().min(panels.end * PANEL);
        let weights = Weights {
            panels: &self.packed[panels.start * inputs * PANEL..panels.end * inputs * PANEL],
            bias: self.bias.map(|bias| &bias[first..last]),
            activation: self.op.activation,
            inputs,
        };
        // SAFETY: each task of the grid has its own rows or its own columns of the output.
        let mut out = unsafe { self.columns.block(rows.start, rows.len(), first, last - first) };
        X::with(&self.x[rows.start * inputs..rows.end * inputs], |x| {
            layer::<P, Y>(isa, x, weights, &mut out);
        });
    }
}

impl<X: Element, Y: Element> Tasks<'_, u8, X, Y> {
    fn run_int8(&self, isa: Isa, task: usize, scales: &Scales) {
        let inputs = self.op.inputs();
        let outputs = self.op.outputs();
        let (rows, panels) = self.grid.task(task);
        let first = panels.start * PANEL;
        let last = outputs.min(panels.end * PANEL);
        let ends = [panels.start, panels.end, outputs];
        let panels = Panels::new(self.packed, scales, self.bias, self.op.activation, inputs, ends);
        // SAFETY: each task of the grid has its own rows or its own columns of the output.
        let mut out = unsafe { self.columns.block(rows.start, rows.len(), first, last - first) };
        let x = &self.x[rows.start * inputs..rows.end * inputs];
        int8::layer(isa, x, inputs, panels, &mut out);
    }
}
