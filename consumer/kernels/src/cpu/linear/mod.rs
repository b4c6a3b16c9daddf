//! `linear` on the processor.
//!
//! The weight is packed once, when the layer is made: panels of [`PANEL`] outputs, the last one filled up with
//! zeros. A task takes a chunk of rows through some of the panels; while a panel is in L2 cache, the rows pass it a few
//! at a time, and every sum stays in registers from the first input to the bias and the activation.

pub(crate) mod blocks;
mod grid;
pub(crate) mod grouped;
pub(crate) mod head_linear;
pub(crate) mod int8;
mod plain;
pub(crate) mod weight_rows;
mod work;

use std::ops::Deref;

use candle_core::{DType, Result, Storage, Tensor};

use self::work::Layer;
use super::element::{As, Element, by_dtype};
use super::gemm::PANEL;
use super::parallel::for_each;
use super::simd::Isa;
use super::storage::{Borrowed, borrow, write};
use crate::ops::linear::{Linear, Operands, PackedWeight};

/// Packs `weight` `[out, in]` as `[panels, in, PANEL]` in the number type that is multiplied; in bf16 the rows of each
/// panel interleave in pairs.
pub(crate) fn pack(weight: &Tensor, multiplied: DType) -> Result<PackedWeight> {
    let (outputs, inputs) = weight.dims2()?;
    let shape = (outputs.div_ceil(PANEL), inputs, PANEL);
    let weight = weight.to_dtype(multiplied)?;
    let values = by_dtype!(multiplied, |P| {
        let values = weight.flatten_all()?.to_vec1::<P>()?;
        Tensor::from_vec(pack_values(&values, outputs, inputs), shape, weight.device())?
    });
    Ok(PackedWeight { values, scales: None, blocks: None })
}

/// `[panels, inputs, PANEL]` from `[outputs, inputs]`, a step's values of each column side by side.
fn pack_values<E: Element>(weight: &[E], outputs: usize, inputs: usize) -> Vec<E> {
    let mut packed = vec![E::default(); outputs.div_ceil(PANEL) * inputs * PANEL];
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let panel = &mut packed[output / PANEL * inputs * PANEL..][..inputs * PANEL];
        let steps = panel.chunks_exact_mut(PANEL * E::STEP).zip(row.chunks_exact(E::STEP));
        for (columns, values) in steps {
            columns[output % PANEL * E::STEP..][..E::STEP].copy_from_slice(values);
        }
    }
    packed
}

pub(crate) fn linear(op: &Linear, Operands { x, out }: Operands<'_>) -> Result<()> {
    let x = borrow(x);
    write(out, |out| {
        by_dtype!(op.dtype, |E| {
            let out = out.values::<E>()?;
            computed::<E, E>(op, &x, out)?;
        });
        Ok(())
    })
}

/// As [`linear`], with sums in `out` as they are.
pub(crate) fn linear_f32(op: &Linear, x: &Tensor, out: &mut [f32]) -> Result<()> {
    let x = borrow(x);
    by_dtype!(op.dtype, |E| computed::<E, f32>(op, &x, out))
}

/// `X`: of input; `Y`: of output.
fn computed<X: Element + As<X> + As<f32>, Y: Element>(
    op: &Linear,
    x: &Borrowed<'_, impl Deref<Target = Storage>>,
    out: &mut [Y],
) -> Result<()> {
    let x = x.values::<X>()?;
    let layer = Layer::borrow(op);
    blocks::with_inputs(x, layer.depth(), |inputs| {
        let work = layer.work(x, inputs, out)?;
        let isa = Isa::best();
        for_each(work.tasks(), |task| work.run(isa, task));
        Ok(())
    })
}
