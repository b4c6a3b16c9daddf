//! `linear_layer_norm` on the executor.

use candle_core::Tensor;
use proptest::prelude::*;

use super::super::{doubles, layer_norm, noise, tensor, values};
use super::{CASES, Memory, assert_agrees, halves, operand, rounding, run, weight};
use crate::cuda::launch::{self, Half};
use crate::ops::linear_layer_norm::reference;
use crate::{Activation, AddLayerNorm, Linear, LinearLayerNorm};

/// One case of the linear layer with its norm.
pub(super) fn check(half: Half, [rows, depth, width]: [usize; 3], seed: u64) {
    let (x, x_values) = operand(half, seed, &[rows, depth]);
    let (residual, residual_values) = operand(half, seed + 1, &[rows, width]);
    let weights = weight(half, seed + 2, [width, depth]);
    let bias = noise(seed + 3, width);
    let norm = layer_norm(seed + 4, width);
    let mut memory = Memory::default();
    let launch = launch::LinearLayerNorm {
        out: memory.output(half, rows * width),
        x: memory.halves(half, &x_values),
        weight: memory.halves(half, &weights),
        residual: memory.halves(half, &residual_values),
        bias: Some(memory.floats(&bias)),
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        rows: rows as u32,
        depth: depth as u32,
        width: width as u32,
        eps: norm.eps,
    };
    assert!(launch::LinearLayerNorm::<()>::fits(width, depth));
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let norm = AddLayerNorm { bias: Some(tensor(&bias, &[width])), norm };
    let exact = reference(
        &doubles(&x_values),
        &doubles(&weights),
        &doubles(&residual_values),
        depth,
        &norm,
    );
    let weights = tensor(&weights, &[width, depth]);
    let linear = Linear::new(&weights, None, Activation::None, x.dtype()).unwrap();
    let on_cpu = on_cpu(&LinearLayerNorm { linear, norm }, &x, &residual);
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, rounding(half) + 1e-3);
}

/// The result of the operation on the processor.
pub(super) fn on_cpu(op: &LinearLayerNorm, x: &Tensor, residual: &Tensor) -> Tensor {
    let projected = residual.zeros_like().unwrap();
    let out = residual.zeros_like().unwrap();
    op.forward_into(x, residual, &projected, &out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn linear_layers_are_normalised_with_their_residual(
        half in halves(), rows in 0..70_usize, vectors in 1..9_usize, wide: bool, seed in 0..u64::MAX / 2,
    ) {
        check(half, [rows, 8 * vectors, if wide { 768 } else { 384 }], seed);
    }
}

#[test]
fn a_layer_of_the_real_size_agrees() {
    check(Half::Bf16, [65, 384, 384], 1);
}
