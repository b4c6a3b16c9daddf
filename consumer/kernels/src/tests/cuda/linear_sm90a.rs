//! `linear` and `linear_layer_norm` on Hopper, on the executor.

use proptest::prelude::*;

use super::super::{doubles, layer_norm, noise, tensor, values};
use super::linear_layer_norm::on_cpu;
use super::{CASES, Memory, assert_agrees, halves, operand, rounding, run, weight};
use crate::cuda::launch::{Half, LinearLayerNormSm90a, LinearSm90a};
use crate::ops::{linear, linear_layer_norm};
use crate::{Activation, AddLayerNorm, Linear, LinearLayerNorm};

/// One case of a layer by itself.
pub(super) fn check_linear(
    half: Half,
    [rows, depth, width]: [usize; 3],
    (activation, biased): (Activation, bool),
    seed: u64,
) {
    let (x, x_values) = operand(half, seed, &[rows, depth]);
    let weights = weight(half, seed + 1, [width, depth]);
    let bias = if biased { noise(seed + 2, width) } else { vec![0.0; width] };
    let mut memory = Memory::default();
    let launch = LinearSm90a {
        out: memory.output(half, rows * width),
        x: memory.halves(half, &x_values),
        weight: memory.halves(half, &weights),
        bias: biased.then(|| memory.floats(&bias)),
        rows: rows as u32,
        depth: depth as u32,
        width: width as u32,
    };
    assert!(LinearSm90a::<()>::fits(width, depth, activation));
    let out = launch.out;
    run(&mut memory, launch.launch(half, activation));
    let exact = linear::reference(
        &doubles(&x_values),
        &doubles(&weights),
        &doubles(&bias),
        depth,
        activation,
    );
    let weights = tensor(&weights, &[width, depth]);
    let bias = tensor(&bias, &[width]);
    let layer = Linear::new(&weights, Some(&bias), activation, x.dtype()).unwrap();
    let on_cpu = layer.forward(&x).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, rounding(half) + 1e-3);
}

/// One case of a layer with its norm.
pub(super) fn check_layer_norm(half: Half, [rows, depth]: [usize; 2], biased: bool, seed: u64) {
    let width = LinearLayerNormSm90a::<()>::WIDTH;
    let (x, x_values) = operand(half, seed, &[rows, depth]);
    let (residual, residual_values) = operand(half, seed + 1, &[rows, width]);
    let weights = weight(half, seed + 2, [width, depth]);
    let bias = if biased { noise(seed + 3, width) } else { vec![0.0; width] };
    let norm = layer_norm(seed + 4, width);
    let mut memory = Memory::default();
    let launch = LinearLayerNormSm90a {
        out: memory.output(half, rows * width),
        x: memory.halves(half, &x_values),
        weight: memory.halves(half, &weights),
        residual: memory.halves(half, &residual_values),
        bias: biased.then(|| memory.floats(&bias)),
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        rows: rows as u32,
        depth: depth as u32,
        eps: norm.eps,
    };
    assert!(LinearLayerNormSm90a::<()>::fits(width, depth));
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let norm = AddLayerNorm { bias: Some(tensor(&bias, &[width])), norm };
    let exact = linear_layer_norm::reference(
        &doubles(&x_values),
        &doubles(&weights),
        &doubles(&residual_values),
        depth,
        &norm,
    );
    let weights = tensor(&weights, &[width, depth]);
    let linear = Linear::new(&weights, None, Activation::None, x.dtype()).unwrap();
    let on_cpu = on_cpu(&LinearLayerNorm { linear, norm }, &x, &residual);
    // The CPU implementation rounds the matrix product too.
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, 1.5 * rounding(half) + 1e-3);
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::None), Just(Activation::Gelu)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn layers_agree(
        half in halves(), rows in 0..150_usize, vectors in 1..26_usize, columns in 1..50_usize,
        activation in activations(), biased: bool, seed in 0..u64::MAX / 2,
    ) {
        check_linear(half, [rows, 8 * vectors, 8 * columns], (activation, biased), seed);
    }

    #[test]
    fn layers_with_their_norms_agree(
        half in halves(), rows in 0..150_usize, vectors in 1..34_usize, biased: bool, seed in 0..u64::MAX / 2,
    ) {
        check_layer_norm(half, [rows, 8 * vectors], biased, seed);
    }
}

#[test]
fn layers_of_the_real_sizes_agree() {
    check_linear(Half::Bf16, [130, 384, 1_152], (Activation::None, false), 1);
    check_linear(Half::F16, [130, 384, 1_536], (Activation::Gelu, true), 2);
    check_layer_norm(Half::Bf16, [130, 384], true, 3);
    check_layer_norm(Half::F16, [65, 1_536], true, 4);
}
