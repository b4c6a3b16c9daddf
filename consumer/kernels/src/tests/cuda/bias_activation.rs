//! `bias_activation` on the executor.

use proptest::prelude::*;

use super::super::{doubles, noisy, tensor};
use super::{
    CASES, CPU_ACTIVATION, Memory, activations, assert_agrees, halves, operand, rounding, run,
};
use crate::cuda::launch::{self, Half};
use crate::{Activation, Linear};

/// One case of the epilogue of a linear layer. The CPU implementation is a whole layer whose weight is the identity.
pub(super) fn check(
    half: Half,
    [rows, width]: [usize; 2],
    with_bias: bool,
    activation: Activation,
    past: u32,
    seed: u64,
) {
    // The CPU implementation computes in f32: a layer in bf16 takes an even number of inputs.
    let (_, x_values) = operand(half, seed, &[rows, width]);
    let x = tensor(&x_values, &[rows, width]);
    let (bias, bias_values) = noisy(seed + 1, &[width]);
    let mut memory = Memory::past(past);
    let x_at = memory.halves(half, &x_values);
    let bias_at = with_bias.then(|| memory.floats(&bias_values));
    run(
        &mut memory,
        launch::bias_activation(half, x_at, bias_at, [rows as u32, width as u32], activation),
    );
    let addends = bias_values.iter().map(|bias| if with_bias { f64::from(*bias) } else { 0.0 });
    let sums = doubles(&x_values).into_iter().zip(addends.cycle());
    let exact: Vec<f64> = sums.map(|(x, bias)| activation.reference(x + bias)).collect();
    let identity: Vec<f32> =
        (0..width * width).map(|at| f32::from(u8::from(at / width == at % width))).collect();
    let identity = tensor(&identity, &[width, width]);
    let on_cpu = Linear::new(&identity, with_bias.then_some(&bias), activation, x.dtype())
        .unwrap()
        .forward(&x)
        .unwrap();
    assert_agrees(&memory.read(half, x_at), &exact, &on_cpu, rounding(half) + CPU_ACTIVATION);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_bias_is_added_and_the_sum_activated(
        half in halves(), rows in 0..40_usize, width in 1..80_usize, with_bias: bool, activation in activations(),
        past in (0..8_u32).prop_map(|values| 2 * values), seed in 0..u64::MAX / 2,
    ) {
        check(half, [rows, width], with_bias, activation, past, seed);
    }
}
