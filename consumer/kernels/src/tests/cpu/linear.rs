//! `linear` on the processor.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::super::{ACTIVATIONS, DTYPES, assert_close, doubles, noisy, noisy_in};
use crate::cpu::linear::pack;
use crate::cpu::simd::Isa;
use crate::ops::linear::{Parameters, reference};
use crate::{Activation, Linear};

/// A layer that multiplies in a number type of the test's choice.
fn multiplying(
    multiplied: DType,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    dtype: DType,
) -> Linear {
    let parameters = Parameters::checked(weight, bias, dtype).unwrap();
    Linear::of(pack(weight, multiplied).unwrap(), parameters, activation, dtype)
}

fn check(
    (dtype, rounding): (DType, f64),
    [tokens, inputs, outputs]: [usize; 3],
    activation: Activation,
    with_bias: bool,
    seed: u64,
) {
    let (x, x_values) = noisy_in(dtype, seed, &[tokens, inputs]);
    let (weight, weight_values) = noisy_in(dtype, seed + 1, &[outputs, inputs]);
    let (bias, bias_values) = noisy(seed + 2, &[outputs]);
    let bias_values = if with_bias { bias_values } else { vec![0.0; outputs] };
    let bias = with_bias.then_some(&bias);
    let [x_values, weight_values, bias_values] =
        [x_values, weight_values, bias_values].map(|values| doubles(&values));
    let expected = reference(&x_values, &weight_values, &bias_values, inputs, activation);
    // Whichever this processor prefers.
    for multiplied in [dtype, DType::F32] {
        let layer = multiplying(multiplied, &weight, bias, activation, dtype);
        assert_eq!((layer.inputs(), layer.outputs()), (inputs, outputs));
        Isa::each(|| {
            let y = layer.forward(&x).unwrap();
            assert_eq!(y.dims(), [tokens, outputs]);
            // A sum grows like the root of its terms, and so do the errors of its roundings.
            assert_close(&y, &expected, rounding + 4e-6 * (inputs as f64).sqrt());
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_agrees(
        tokens in 1..80_usize,
        half_inputs in 1..50_usize,
        odd in 0..2_usize,
        outputs in 1..100_usize,
        activation in prop::sample::select(&ACTIVATIONS[..]),
        with_bias: bool,
        seed in 0..u64::MAX / 2,
    ) {
        // Any number of inputs in f32, an even one in bf16.
        check(DTYPES[0], [tokens, 2 * half_inputs - odd, outputs], activation, with_bias, seed);
        check(DTYPES[1], [tokens, 2 * half_inputs, outputs], activation, with_bias, seed);
    }
}

#[test]
fn one_token_through_a_wide_layer_agrees() {
    for dtype in DTYPES {
        check(dtype, [1, 384, 1536], Activation::Gelu, true, 1);
    }
}

#[test]
fn more_rows_than_a_chunk_agree() {
    for dtype in DTYPES {
        check(dtype, [700, 1536, 70], Activation::None, true, 2);
    }
}

#[test]
fn no_tokens_give_no_rows() {
    for dtype in DTYPES {
        check(dtype, [0, 8, 40], Activation::Gelu, true, 3);
    }
}
