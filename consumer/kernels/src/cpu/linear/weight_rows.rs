//! `weight_rows` on the processor: read out of the panels that the layer multiplies by.

use candle_core::Result;

use super::blocks::weights_of;
use crate::cpu::element::{Element, by_dtype, store};
use crate::cpu::gemm::PANEL;
use crate::cpu::rows::each_rows;
use crate::cpu::scratch::sized;
use crate::cpu::storage::{borrow, write};
use crate::ops::linear::Linear;
use crate::ops::weight_rows::Operands;

pub(crate) fn weight_rows(op: &Linear, Operands { outputs, out }: Operands<'_>) -> Result<()> {
    let inputs = op.inputs();
    let packed = borrow(&op.weight.values);
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let out = out.values::<E>()?;
            if let Some(format) = op.weight.blocks {
                let packed = packed.bytes()?;
                rows(out, inputs, outputs, |output, row| weights_of(format, packed, output, row));
            } else {
                by_dtype!(op.weight.values.dtype(), |P| {
                    let packed = packed.values::<P>()?;
                    rows(out, inputs, outputs, |output, row| plain(packed, output, row));
                });
            }
        });
        Ok(())
    })
}

fn rows<E: Element>(
    out: &mut [E],
    inputs: usize,
    outputs: &[u32],
    read: impl Fn(usize, &mut [f32]) + Sync,
) {
    each_rows(out, inputs, |range, out| {
        E::with_scratch(|scratch| {
            let row = sized(&mut scratch.floats, inputs);
            for (out, output) in out.chunks_exact_mut(inputs).zip(&outputs[range]) {
                read(*output as usize, row);
                store(row, out);
            }
        });
    });
}

/// Of panels of plain numbers, `pack_values`.
fn plain<P: Element>(packed: &[P], output: usize, row: &mut [f32]) {
    let inputs = row.len();
    let panel = &packed[output / PANEL * inputs * PANEL..][..inputs * PANEL];
    let steps = row.chunks_exact_mut(P::STEP).zip(panel.chunks_exact(PANEL * P::STEP));
    for (row, columns) in steps {
        let values = &columns[output % PANEL * P::STEP..][..P::STEP];
        for (weight, value) in row.iter_mut().zip(values) {
            *weight = value.widen();
        }
    }
}
