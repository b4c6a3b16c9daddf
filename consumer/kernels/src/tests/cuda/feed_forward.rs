//! `feed_forward` on the executor.

use candle_core::Tensor;
use proptest::prelude::*;

use super::super::{doubles, layer_norm, noise, tensor, values};
use super::{CASES, Memory, assert_agrees, halves, operand, rounding, run, weight};
use crate::cuda::launch::{self, Half};
use crate::ops::feed_forward::reference;
use crate::{Activation, AddLayerNorm, FeedForward, Linear, LinearLayerNorm};

/// One case of a whole feed-forward half.
pub(super) fn check(half: Half, [rows, inner]: [usize; 2], seed: u64) {
    let width = 384;
    let (x, x_values) = operand(half, seed, &[rows, width]);
    let ups = weight(half, seed + 1, [inner, width]);
    let downs = weight(half, seed + 2, [width, inner]);
    let up_bias = noise(seed + 3, inner);
    let bias = noise(seed + 4, width);
    let norm = layer_norm(seed + 5, width);
    let mut memory = Memory::default();
    let launch = launch::FeedForward {
        out: memory.output(half, rows * width),
        x: memory.halves(half, &x_values),
        up: memory.halves(half, &ups),
        down: memory.halves(half, &downs),
        up_bias: memory.floats(&up_bias),
        bias: Some(memory.floats(&bias)),
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        rows: rows as u32,
        inner: inner as u32,
        eps: norm.eps,
    };
    assert!(launch::FeedForward::<()>::fits(width, inner));
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let norm = AddLayerNorm { bias: Some(tensor(&bias, &[width])), norm };
    let exact = reference(
        &doubles(&x_values),
        (&doubles(&ups), &doubles(&up_bias)),
        Activation::Gelu,
        &doubles(&downs),
        &norm,
    );
    let up_bias = tensor(&up_bias, &[inner]);
    let ups = tensor(&ups, &[inner, width]);
    let up = Linear::new(&ups, Some(&up_bias), Activation::Gelu, x.dtype()).unwrap();
    let downs = tensor(&downs, &[width, inner]);
    let linear = Linear::new(&downs, None, Activation::None, x.dtype()).unwrap();
    let op = FeedForward { up, down: LinearLayerNorm { linear, norm } };
    let projected = x.zeros_like().unwrap();
    let on_cpu = x.zeros_like().unwrap();
    let activations = Tensor::zeros((rows, inner), x.dtype(), x.device()).unwrap();
    op.forward_into(&x, &activations, &projected, &on_cpu).unwrap();
    // Intermediate activations are rounded, then the result.
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, 2.0 * rounding(half) + 1e-3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn feed_forward_halves_agree(half in halves(), rows in 0..70_usize, steps in 1..3_usize, seed in 0..u64::MAX / 2) {
        check(half, [rows, 32 * steps], seed);
    }
}

#[test]
fn a_layer_of_the_real_size_agrees() {
    check(Half::Bf16, [65, 1536], 2);
}
