//! `linear` in int8, within what quantizing both sides can cost.

use candle_core::DType;
use proptest::prelude::*;

use super::super::{DTYPES, doubles, noisy, noisy_in, tensor, values};
use crate::cpu::simd::Isa;
use crate::ops::linear::reference;
use crate::{Activation, Linear};

/// Half a step of each side's quantization, by all that the other side multiplies it with.
fn error_max(x: &[f32], row: &[f32]) -> f64 {
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    let low = x.iter().copied().fold(0.0_f32, f32::min);
    let high = x.iter().copied().fold(0.0_f32, f32::max);
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step_x = f64::from(high - low) / 255.0;
    let step_w = f64::from(largest) / 127.0;
    // The byte of zero is rounded too, so that an input may be a whole step off at the ends.
    step_x * sum(row) + 0.5 * step_w * sum(x) + 0.5 * row.len() as f64 * step_x * step_w
}

fn check(
    (dtype, rounding): (DType, f64),
    [tokens, inputs, outputs]: [usize; 3],
    activation: Activation,
    seed: u64,
) {
    let (x, x_values) = noisy_in(dtype, seed, &[tokens, inputs]);
    let (weight, weight_values) = noisy(seed + 1, &[outputs, inputs]);
    let (bias, bias_values) = noisy(seed + 2, &[outputs]);
    let layer = Linear::int8(&weight, Some(&bias), activation, dtype).unwrap();
    let expected = reference(
        &doubles(&x_values),
        &doubles(&weight_values),
        &doubles(&bias_values),
        inputs,
        activation,
    );
    let mut first: Option<Vec<f32>> = None;
    Isa::each(|| {
        let y = values(&layer.forward(&x).unwrap());
        assert_eq!(y.len(), tokens * outputs);
        for (token, x) in x_values.chunks_exact(inputs).enumerate() {
            for (output, row) in weight_values.chunks_exact(inputs).enumerate() {
                let at = token * outputs + output;
                // No activation is steeper than 1.13.
                let most =
                    1.13 * error_max(x, row) + (rounding + 1e-5) * expected[at].abs().max(1.0);
                let distance = (f64::from(y[at]) - expected[at]).abs();
                assert!(distance <= most, "{}, expected {}", y[at], expected[at]);
            }
        }
        if activation == Activation::None {
            let first = first.get_or_insert_with(|| y.clone());
            assert_eq!(*first, y, "sets differ");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_shape_agrees(
        tokens in 1..80_usize,
        inputs in 1..100_usize,
        outputs in 1..100_usize,
        activation in prop::sample::select(vec![Activation::None, Activation::Gelu, Activation::Tanh]),
        seed in 0..u64::MAX / 2,
    ) {
        for dtype in DTYPES {
            check(dtype, [tokens, inputs, outputs], activation, seed);
        }
    }
}

#[test]
fn one_token_and_more_rows_than_a_chunk_agree() {
    check(DTYPES[0], [1, 384, 1_536], Activation::Gelu, 1);
    check(DTYPES[1], [1_500, 384, 70], Activation::None, 2);
    check(DTYPES[0], [0, 8, 40], Activation::None, 3);
}

#[test]
fn a_non_finite_value_stays_in_its_token_and_zeros_give_the_bias() {
    let (weight, _) = noisy(1, &[40, 10]);
    let (bias, bias_values) = noisy(2, &[40]);
    let layer = Linear::int8(&weight, Some(&bias), Activation::None, DType::F32).unwrap();
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![0.0; 30];
        x[13] = broken;
        let y = values(&layer.forward(&tensor(&x, &[3, 10])).unwrap());
        assert_eq!(y[..40], bias_values[..]);
        assert!(y[40..80].iter().all(|value| !value.is_finite()), "{broken}");
        assert_eq!(y[80..], bias_values[..]);
    }
}
