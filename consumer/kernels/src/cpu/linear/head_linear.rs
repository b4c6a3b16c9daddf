//! `head_linear` on the processor: a task takes a chunk of rows of one head through that head's panels.
#![allow(unsafe_code)]

use candle_core::Result;

use super::plain::{Weights, layer};
use crate::cpu::block::Columns;
use crate::cpu::element::{As, Element, by_dtype};
use crate::cpu::gemm::{PANEL, ROWS_MAX};
use crate::cpu::parallel::for_each;
use crate::cpu::scratch::sized;
use crate::cpu::simd::Isa;
use crate::cpu::storage::{borrow, write};
use crate::ops::activation::Activation;
use crate::ops::head_linear::{HeadLinear, Operands};

/// Rows a task: enough that a head's panels are read seldom, few enough that its rows stay in L2 cache beside one.
const ROWS_TASK: usize = 8 * ROWS_MAX;

pub(crate) fn head_linear(op: &HeadLinear, Operands { x, out }: Operands<'_>) -> Result<()> {
    let x_width = x.dims()[1] / op.heads;
    let out_width = out.dims()[1] / op.heads;
    let x = borrow(x);
    let packed = borrow(&op.weight.values);
    write(out, |out| {
        by_dtype!(op.dtype, |E| {
            let x = Heads { values: x.values::<E>()?, width: x_width };
            let out = out.values::<E>()?;
            if op.weight.values.dtype() == op.dtype {
                run::<E, E>(op, x, packed.values()?, out, out_width);
            } else {
                run::<f32, E>(op, x, packed.values()?, out, out_width);
            }
        });
        Ok(())
    })
}

/// Rows of heads side by side.
#[derive(Clone, Copy)]
struct Heads<'a, E> {
    values: &'a [E],
    /// Of a head.
    width: usize,
}

/// `P`: type of weights and multiplication; `E`: of input and output.
fn run<P: Element, E: Element + As<P>>(
    op: &HeadLinear,
    x: Heads<'_, E>,
    packed: &[P],
    out: &mut [E],
    out_width: usize,
) {
    let HeadLinear { heads, inputs, outputs, .. } = *op;
    let isa = Isa::best();
    let rows = x.values.len() / (heads * x.width);
    let panels = outputs.next_multiple_of(PANEL) * inputs;
    let columns = Columns::new(out, heads * out_width);
    for_each(rows.div_ceil(ROWS_TASK) * heads, |task| {
        let [first, head] = [task / heads * ROWS_TASK, task % heads];
        let count = ROWS_TASK.min(rows - first);
        let weights = Weights {
            panels: &packed[head * panels..][..panels],
            bias: None,
            activation: Activation::None,
            inputs,
        };
        // SAFETY: each task has its own rows or its own columns, those of its head, of the output.
        let mut out = unsafe { columns.block(first, count, head * out_width, outputs) };
        E::with_scratch(|scratch| {
            let gathered = sized(&mut scratch.queries, count * inputs);
            for (row, gathered) in gathered.chunks_exact_mut(inputs).enumerate() {
                let at = ((first + row) * heads + head) * x.width;
                gathered.copy_from_slice(&x.values[at..at + inputs]);
            }
            E::with(gathered, |x| layer::<P, E>(isa, x, weights, &mut out));
        });
    });
}
