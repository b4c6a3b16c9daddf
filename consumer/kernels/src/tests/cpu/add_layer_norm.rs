//! `add_layer_norm` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, layer_norm, noisy, noisy_in, tensor, values};
use crate::AddLayerNorm;
use crate::cpu::simd::Isa;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_of_any_width_are_normalised(
        tokens in 0..50_usize,
        hidden in 2..140_usize,
        with_bias: bool,
        seed in 0..u64::MAX / 2,
    ) {
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, hidden]);
            let (residual, residual_values) = noisy_in(dtype, seed + 1, &[tokens, hidden]);
            let (bias, _) = noisy(seed + 2, &[hidden]);
            let op = AddLayerNorm { bias: with_bias.then_some(bias), norm: layer_norm(seed + 3, hidden) };
            let sums = op.reference_sum(&doubles(&x_values), &doubles(&residual_values));
            let normalised = op.reference(&doubles(&x_values), &doubles(&residual_values));
            // A row of two nearly equal values has a small variance, which magnifies the rounding of its sums.
            let tolerance = rounding + 2e-4;
            Isa::each(|| assert_close(&op.forward(&x, &residual).unwrap(), &normalised, tolerance));
            Isa::each(|| {
                let sum = residual.copy().unwrap();
                let out = residual.zeros_like().unwrap();
                op.forward_both_into(&x, &sum, &out).unwrap();
                assert_close(&sum, &sums, rounding);
                // What is normalised is the sum as it was kept.
                let kept = op.norm.reference(&doubles(&values(&sum)));
                assert_close(&out, &kept, tolerance);
            });
        }
    }
}

#[test]
fn a_far_mean_does_not_swallow_the_variance() {
    let hidden = 64;
    let (noise, noise_values) = noisy(7, &[1, hidden]);
    let far = tensor(&vec![4096.0; hidden], &[1, hidden]);
    let op = AddLayerNorm { bias: None, norm: layer_norm(8, hidden) };
    // The sum rounds to 2^-12; with the one-pass formula (mean square minus squared mean) nothing would remain.
    let row: Vec<f64> = noise_values.iter().map(|&value| f64::from(value + 4096.0)).collect();
    let expected = op.norm.reference(&row);
    Isa::each(|| assert_close(&op.forward(&noise, &far).unwrap(), &expected, 1e-4));
}
