//! `linear` against a sum of products in f64.

use proptest::prelude::*;

use super::math::gelu_reference;
use super::{assert_close, noisy};
use crate::simd::Isa;
use crate::{Activation, Linear};

fn reference(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    inputs: usize,
    activation: Activation,
) -> Vec<f64> {
    let dot = |x: &[f32], row: &[f32]| {
        x.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let row = |x: &[f32]| {
        let products = weight.chunks_exact(inputs).map(|row| dot(x, row));
        products.zip(bias).map(|(sum, bias)| sum + f64::from(*bias)).collect::<Vec<_>>()
    };
    let sums = x.chunks_exact(inputs).flat_map(row);
    match activation {
        Activation::None => sums.collect(),
        Activation::Gelu => sums.map(gelu_reference).collect(),
    }
}

fn check(
    tokens: usize,
    inputs: usize,
    outputs: usize,
    activation: Activation,
    with_bias: bool,
    seed: u64,
) {
    let (x, x_values) = noisy(seed, &[tokens, inputs]);
    let (weight, weight_values) = noisy(seed + 1, &[outputs, inputs]);
    let (bias, bias_values) = noisy(seed + 2, &[outputs]);
    let bias_values = if with_bias { bias_values } else { vec![0.0; outputs] };
    let layer = Linear::new(&weight, with_bias.then_some(bias), activation).unwrap();
    let expected = reference(&x_values, &weight_values, &bias_values, inputs, activation);
    Isa::each(|| {
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [tokens, outputs]);
        // A sum grows like the root of its terms, and so do the errors of its roundings.
        assert_close(&y, &expected, 4e-6 * (inputs as f64).sqrt());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_agrees(
        tokens in 1..80_usize,
        inputs in 1..100_usize,
        outputs in 1..100_usize,
        gelu: bool,
        with_bias: bool,
        seed: u64,
    ) {
        let activation = if gelu { Activation::Gelu } else { Activation::None };
        check(tokens, inputs, outputs, activation, with_bias, seed >> 1);
    }
}

#[test]
fn one_token_through_a_wide_layer_agrees() {
    check(1, 384, 1536, Activation::Gelu, true, 1);
}

#[test]
fn more_rows_than_a_chunk_agree() {
    check(700, 1536, 70, Activation::None, true, 2);
}

#[test]
fn no_tokens_give_no_rows() {
    check(0, 8, 40, Activation::Gelu, true, 3);
}
