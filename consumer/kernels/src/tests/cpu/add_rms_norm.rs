//! `add_rms_norm` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, noisy_in, rms_norm, values};
use crate::AddRmsNorm;
use crate::cpu::simd::Isa;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_sum_is_kept_and_normalised_as_it_was_rounded(
        tokens in 0..50_usize,
        hidden in 1..140_usize,
        seed in 0..u64::MAX / 2,
    ) {
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, hidden]);
            let (residual, residual_values) = noisy_in(dtype, seed + 1, &[tokens, hidden]);
            let op = AddRmsNorm { norm: rms_norm(seed + 2, hidden) };
            let sums: Vec<f64> = doubles(&x_values)
                .into_iter()
                .zip(doubles(&residual_values))
                .map(|(x, residual)| x + residual)
                .collect();
            Isa::each(|| {
                let sum = residual.copy().unwrap();
                let out = residual.zeros_like().unwrap();
                op.forward_both_into(&x, &sum, &out).unwrap();
                assert_close(&sum, &sums, rounding);
                let kept = op.norm.reference(&doubles(&values(&sum)));
                assert_close(&out, &kept, rounding + 1e-5);
            });
        }
    }
}

#[test]
fn it_gives_the_bits_of_the_sum_and_the_norm_apart() {
    for (dtype, _) in DTYPES {
        let (x, _) = noisy_in(dtype, 1, &[9, 576]);
        let (sum, _) = noisy_in(dtype, 2, &[9, 576]);
        let apart = (&x + &sum).unwrap();
        let op = AddRmsNorm { norm: rms_norm(3, 576) };
        let out = sum.zeros_like().unwrap();
        op.forward_both_into(&x, &sum, &out).unwrap();
        assert_eq!(values(&sum), values(&apart));
        assert_eq!(values(&out), values(&op.norm.forward(&apart).unwrap()));
    }
}
