//! `feed_forward` on the processor.

use candle_core::Tensor;
use proptest::prelude::*;

use super::super::{ACTIVATIONS, DTYPES, assert_close, doubles, layer_norm, noisy, noisy_in};
use super::weight;
use crate::cpu::simd::Isa;
use crate::ops::feed_forward::reference;
use crate::{Activation, AddLayerNorm, FeedForward, Linear, LinearLayerNorm};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn feed_forward_halves_agree(
        tokens in 0..40_usize,
        half_hidden in 4..40_usize,
        half_inner in 1..60_usize,
        activation in prop::sample::select(&ACTIVATIONS[..]),
        seed in 0..u64::MAX / 2,
    ) {
        let hidden = 2 * half_hidden;
        let inner = 2 * half_inner;
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, hidden]);
            let (up, up_values) = weight(dtype, seed + 1, [inner, hidden]);
            let (up_bias, up_bias_values) = noisy(seed + 2, &[inner]);
            let (down, down_values) = weight(dtype, seed + 3, [hidden, inner]);
            let bias = noisy(seed + 4, &[hidden]).0;
            let norm = AddLayerNorm { bias: Some(bias), norm: layer_norm(seed + 5, hidden) };
            let expected = reference(
                &doubles(&x_values),
                (&doubles(&up_values), &doubles(&up_bias_values)),
                activation,
                &doubles(&down_values),
                &norm,
            );
            let up = Linear::new(&up, Some(&up_bias), activation, dtype).unwrap();
            let linear = Linear::new(&down, None, Activation::None, dtype).unwrap();
            let op = FeedForward { up, down: LinearLayerNorm { linear, norm } };
            Isa::each(|| {
                let activations = Tensor::zeros((tokens, inner), dtype, x.device()).unwrap();
                let projected = x.zeros_like().unwrap();
                let out = x.zeros_like().unwrap();
                op.forward_into(&x, &activations, &projected, &out).unwrap();
                // Intermediate activations are rounded, then the second matrix product, then the result.
                assert_close(&out, &expected, 6.0 * rounding + 2e-4);
            });
        }
    }
}
