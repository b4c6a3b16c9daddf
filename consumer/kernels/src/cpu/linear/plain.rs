//! Rows through panels of plain numbers: every sum stays in registers from the first input to the bias and the
//! activation.

use crate::cpu::activation::activate;
use crate::cpu::block::Block;
use crate::cpu::element::{Element, store};
use crate::cpu::gemm::{
    PANEL, PanelOf, ROWS_MAX, RowsOf, columns_at_once, fetched, multiply, rows_at_once,
};
use crate::cpu::simd::{Isa, Target, dispatched};
use crate::ops::activation::Activation;

/// Some panels of a layer with their part of the bias.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, E> {
    pub(super) panels: &'a [E],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
    pub(super) inputs: usize,
}

pub(super) fn layer<P: Element, E: Element>(
    isa: Isa,
    x: &[P],
    weights: Weights<'_, P>,
    out: &mut Block<'_, E>,
) {
    chunk::<P, E>(isa, x, weights, out);
}

dispatched! {
    /// A chunk of rows through some panels: `out` has a column for each output of the panels.
    fn chunk<P, E>(x: &[P], weights: Weights<'_, P>, out: &mut Block<'_, E>) = pass;
}

#[inline(always)]
fn pass<T: Target, P: Element, E: Element>(
    x: &[P],
    weights: Weights<'_, P>,
    out: &mut Block<'_, E>,
) {
    let inputs = weights.inputs;
    let rows = RowsOf::new(x, inputs, out.rows(), inputs);
    let columns = columns_at_once::<T>();
    let mut sums = [0.0; PANEL * ROWS_MAX];
    for column in (0..out.width()).step_by(columns) {
        let values = &weights.panels[column / PANEL * inputs * PANEL..][..inputs * PANEL];
        let width = columns.min(out.width() - column);
        let mut panel = PanelOf {
            values,
            column: column % PANEL,
            start: weights.bias.map(|bias| &bias[column..column + width]),
            next: values.as_ptr().wrapping_add(values.len()).cast(),
        };
        let mut first = 0;
        while first < rows.count() {
            let count = rows_at_once::<T>(rows.count() - first);
            let rows = rows.part(first, count);
            let mut out = out.part(first..first + count, column..column + width);
            first += count;
            let this = panel;
            panel.next = panel.next.wrapping_add(fetched::<P>(inputs));
            if weights.activation == Activation::None
                && width == columns
                && let Some(sums) = E::sums(out.part(0..count, 0..width))
            {
                multiply::<T, P>(rows, this, sums);
                continue;
            }
            let sums = &mut sums[..count * columns];
            multiply::<T, P>(rows, this, Block::new(sums, count, columns, columns));
            // All rows at once: more independent chains than one row has.
            activate::<T, E>(weights.activation, sums);
            for (row, sums) in sums.chunks_exact(columns).enumerate() {
                // In the first branch the compiler knows how long the row is.
                if width == columns {
                    store(sums, &mut out.row(row)[..columns_at_once::<T>()]);
                } else {
                    store(&sums[..width], out.row(row));
                }
            }
        }
    }
}
