//! `linear_layer_norm` and `feed_forward` on the executor, against the operations that they are made of.

use proptest::prelude::*;

use super::super::linear::reference as linear_reference;
use super::super::{layer_norm, layer_norm_reference, noise, tensor, values};
use super::{Memory, assert_agrees, halves, operand, rounded, rounding, run};
use crate::launch::{FeedForward, Half, LinearLayerNorm};
use crate::{Activation, AddLayerNorm, LayerNorm, Linear};

/// Products of whole rows take the executor a second for some hundred tokens.
const CASES: u32 = 200;

/// A weight whose products with noise are of the size of noise.
pub(super) fn weight(half: Half, seed: u64, [outputs, inputs]: [usize; 2]) -> Vec<f32> {
    let size = (inputs as f32).sqrt();
    noise(seed, outputs * inputs).iter().map(|value| rounded(half, value / size)).collect()
}

pub(super) fn normalized(sums: &[f64], norm: &LayerNorm) -> Vec<f64> {
    let hidden = norm.scale.dims()[0];
    sums.chunks_exact(hidden).flat_map(|row| layer_norm_reference(row, norm)).collect()
}

pub(super) fn added(sums: &[f64], residual: &[f32]) -> Vec<f64> {
    sums.iter().zip(residual).map(|(sum, residual)| sum + f64::from(*residual)).collect()
}

/// One case of the product with its norm.
pub(super) fn check_linear(half: Half, [rows, depth, width]: [usize; 3], seed: u64) {
    let (x, x_values) = operand(half, seed, &[rows, depth]);
    let (residual, residual_values) = operand(half, seed + 1, &[rows, width]);
    let weights = weight(half, seed + 2, [width, depth]);
    let (bias, norm) = (noise(seed + 3, width), layer_norm(seed + 4, width));
    let mut memory = Memory::default();
    let launch = LinearLayerNorm {
        out: memory.room(half, rows * width),
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
    assert!(LinearLayerNorm::<()>::fits(width, depth));
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let sums = linear_reference(&x_values, &weights, &bias, depth, Activation::None);
    let exact = normalized(&added(&sums, &residual_values), &norm);
    let linear =
        Linear::new(&tensor(&weights, &[width, depth]), None, Activation::None, x.dtype()).unwrap();
    let close = AddLayerNorm { bias: Some(tensor(&bias, &[width])), norm };
    let twin = close.forward(&linear.forward(&x).unwrap(), &residual).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &twin, rounding(half) + 1e-3);
}

/// One case of a whole feed-forward half.
pub(super) fn check_feed_forward(half: Half, [rows, inner]: [usize; 2], seed: u64) {
    let width = 384;
    let (x, x_values) = operand(half, seed, &[rows, width]);
    let ups = weight(half, seed + 1, [inner, width]);
    let downs = weight(half, seed + 2, [width, inner]);
    let (up_bias, bias) = (noise(seed + 3, inner), noise(seed + 4, width));
    let norm = layer_norm(seed + 5, width);
    let mut memory = Memory::default();
    let launch = FeedForward {
        out: memory.room(half, rows * width),
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
    assert!(FeedForward::<()>::fits(width, inner));
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let wide = linear_reference(&x_values, &ups, &up_bias, width, Activation::Gelu);
    let wide: Vec<f32> = wide.iter().map(|value| *value as f32).collect();
    let sums = linear_reference(&wide, &downs, &bias, inner, Activation::None);
    let exact = normalized(&added(&sums, &x_values), &norm);
    let (up_bias, bias) = (tensor(&up_bias, &[inner]), tensor(&bias, &[width]));
    let up =
        Linear::new(&tensor(&ups, &[inner, width]), Some(&up_bias), Activation::Gelu, x.dtype())
            .unwrap();
    let down =
        Linear::new(&tensor(&downs, &[width, inner]), None, Activation::None, x.dtype()).unwrap();
    let close = AddLayerNorm { bias: Some(bias), norm };
    let twin = close.forward(&down.forward(&up.forward(&x).unwrap()).unwrap(), &x).unwrap();
    // The wide state is rounded, then the result.
    assert_agrees(&memory.read(half, out), &exact, &twin, 2.0 * rounding(half) + 1e-3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn products_are_normalised_with_their_residual(
        half in halves(), rows in 0..70_usize, vectors in 1..9_usize, wide: bool, seed in 0..u64::MAX / 2,
    ) {
        check_linear(half, [rows, 8 * vectors, if wide { 768 } else { 384 }], seed);
    }

    #[test]
    fn feed_forward_halves_agree(half in halves(), rows in 0..70_usize, steps in 1..3_usize, seed in 0..u64::MAX / 2) {
        check_feed_forward(half, [rows, 32 * steps], seed);
    }
}

#[test]
fn a_layer_of_the_real_size_agrees() {
    check_linear(Half::Bf16, [65, 384, 384], 1);
    check_feed_forward(Half::Bf16, [65, 1536], 2);
}
