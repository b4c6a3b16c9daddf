//! `linear_layer_norm` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, layer_norm, noisy, noisy_in};
use super::weight;
use crate::cpu::simd::Isa;
use crate::ops::linear_layer_norm::reference;
use crate::{Activation, AddLayerNorm, Linear, LinearLayerNorm};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear_layers_are_normalised_with_their_residual(
        tokens in 0..40_usize,
        half_inputs in 1..40_usize,
        hidden in 8..100_usize,
        seed in 0..u64::MAX / 2,
    ) {
        let inputs = 2 * half_inputs;
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, inputs]);
            let (residual, residual_values) = noisy_in(dtype, seed + 1, &[tokens, hidden]);
            let (weight, weight_values) = weight(dtype, seed + 2, [hidden, inputs]);
            let bias = noisy(seed + 3, &[hidden]).0;
            let norm = AddLayerNorm { bias: Some(bias), norm: layer_norm(seed + 4, hidden) };
            let expected = reference(
                &doubles(&x_values),
                &doubles(&weight_values),
                &doubles(&residual_values),
                inputs,
                &norm,
            );
            let linear = Linear::new(&weight, None, Activation::None, dtype).unwrap();
            let op = LinearLayerNorm { linear, norm };
            Isa::each(|| {
                let projected = residual.zeros_like().unwrap();
                let out = residual.zeros_like().unwrap();
                op.forward_into(&x, &residual, &projected, &out).unwrap();
                // The matrix product is rounded, then the result.
                assert_close(&out, &expected, 4.0 * rounding + 2e-4);
            });
        }
    }
}
