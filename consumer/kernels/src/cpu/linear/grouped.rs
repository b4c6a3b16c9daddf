//! Several linear layers of one shape, each with rows of its own: a grouped matrix product.
//!
//! Rows lie in the order of their layers. The tasks of all layers are dealt out together, so that a step whose rows go
//! to many layers wakes the threads once. A row's result is that of its layer by itself, bit by bit.

use std::mem::take;
use std::ops::{Deref, Range};

use candle_core::{Result, Storage, Tensor};

use super::blocks;
use super::work::Layer;
use crate::cpu::element::{As, Element, by_dtype};
use crate::cpu::parallel::for_each;
use crate::cpu::simd::Isa;
use crate::cpu::storage::{borrow, write};
use crate::ops::linear::Linear;

/// Rows `rows` of `x` through `layer`, for each of the layers, which follow each other without gaps.
#[derive(Clone)]
pub(crate) struct Group<'a> {
    pub(crate) layer: &'a Linear,
    pub(crate) rows: Range<usize>,
}

/// `x`: `[rows, in]`; writes `out`: `[rows, out]`.
pub(crate) fn grouped(groups: &[Group<'_>], x: &Tensor, out: &Tensor) -> Result<()> {
    let Some(Group { layer: first, .. }) = groups.first() else { return Ok(()) };
    let x = borrow(x);
    let layers: Vec<_> = groups.iter().map(|group| Layer::borrow(group.layer)).collect();
    write(out, |out| {
        by_dtype!(first.dtype, |E| run(groups, &layers, x.values::<E>()?, out.values::<E>()?))
    })
}

fn run<E: Element + As<f32>>(
    groups: &[Group<'_>],
    layers: &[Layer<'_, impl Deref<Target = Storage>>],
    x: &[E],
    mut out: &mut [E],
) -> Result<()> {
    let depth = layers.iter().find_map(Layer::depth);
    blocks::with_inputs(x, depth, |quantized| {
        let mut works = Vec::with_capacity(groups.len());
        // How many tasks there are up to and with each of them.
        let mut ends = Vec::with_capacity(groups.len());
        let mut tasks = 0;
        for (layer, Group { layer: op, rows }) in layers.iter().zip(groups) {
            let (these, rest) = take(&mut out).split_at_mut(rows.len() * op.outputs());
            out = rest;
            let quantized = match depth {
                Some(depth) => &quantized[rows.start * depth..rows.end * depth],
                None => &[],
            };
            let x = &x[rows.start * op.inputs()..rows.end * op.inputs()];
            let work = layer.work(x, quantized, these)?;
            tasks += work.tasks();
            ends.push(tasks);
            works.push(work);
        }
        let isa = Isa::best();
        for_each(tasks, |task| {
            let at = ends.partition_point(|&end| end <= task);
            let before = if at == 0 { 0 } else { ends[at - 1] };
            works[at].run(isa, task - before);
        });
        Ok(())
    })
}
