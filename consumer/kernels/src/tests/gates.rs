//! `gate` and `rotary` against their formulas in f64.

use candle_core::DType;
use proptest::prelude::*;

use super::math::activation_reference;
use super::{DTYPES, assert_close, cu_seqlens, lengths, noisy_in, values};
use crate::simd::Isa;
use crate::{Activation, Gate, KernelError, Rotary};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_half_gates_the_other(tokens in 0..40_usize, inner in 1..100_usize, silu: bool, seed: u64) {
        let activation = if silu { Activation::Silu } else { Activation::Gelu };
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, 2 * inner]);
            let gated = |row: &[f32]| -> Vec<f64> {
                let (first, second) = row.split_at(inner);
                let halves = first.iter().zip(second);
                halves.map(|(a, b)| activation_reference(activation, f64::from(*a)) * f64::from(*b)).collect()
            };
            let expected: Vec<f64> = x_values.chunks_exact(2 * inner).flat_map(gated).collect();
            Isa::each(|| {
                let y = Gate { activation }.forward(&x).unwrap();
                assert_close(&y, &expected, rounding + 4e-6);
            });
        }
    }

    #[test]
    fn queries_and_keys_turn_with_their_positions_and_values_stay(
        lengths in lengths(),
        heads in 1..4_usize,
        half in 1..20_usize,
        seed: u64,
    ) {
        let cu_seqlens = cu_seqlens(&lengths);
        let (dim, positions) = (2 * half, lengths.iter().flat_map(|&tokens| 0..tokens));
        let rotary = Rotary::new(dim, 10_000.0, 70).unwrap();
        for (dtype, rounding) in DTYPES {
            let (_, before) = noisy_in(dtype, seed, &[cu_seqlens.tokens(), 3 * heads * dim]);
            let mut expected: Vec<f64> = before.iter().map(|value| f64::from(*value)).collect();
            for (row, position) in expected.chunks_exact_mut(3 * heads * dim).zip(positions.clone()) {
                for head in row[..2 * heads * dim].chunks_exact_mut(dim) {
                    for i in 0..half {
                        let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / dim as f64);
                        let (a, b) = (head[i], head[half + i]);
                        head[i] = a * angle.cos() - b * angle.sin();
                        head[half + i] = b * angle.cos() + a * angle.sin();
                    }
                }
            }
            Isa::each(|| {
                let qkv = noisy_in(dtype, seed, &[cu_seqlens.tokens(), 3 * heads * dim]).0;
                rotary.apply(&qkv, &cu_seqlens, heads).unwrap();
                assert_close(&qkv, &expected, rounding + 1e-6);
            });
        }
    }
}

#[test]
fn halves_that_are_none_and_positions_without_an_angle_are_refused() {
    let odd = noisy_in(DType::F32, 1, &[2, 5]).0;
    assert!(matches!(
        Gate { activation: Activation::Gelu }.forward(&odd),
        Err(KernelError::Shape { operand: "x", .. })
    ));
    let rotary = Rotary::new(4, 10_000.0, 3).unwrap();
    let apply = |tokens: usize, width: usize| {
        let qkv = noisy_in(DType::F32, 1, &[tokens, width]).0;
        let before = values(&qkv);
        let result = rotary.apply(&qkv, &cu_seqlens(&[4]), 2);
        assert_eq!(values(&qkv), before, "what is refused is not touched");
        result.unwrap_err()
    };
    assert!(matches!(apply(4, 24), KernelError::OutsideTable { value: 3, rows: 3, .. }));
    assert!(matches!(apply(5, 24), KernelError::Shape { operand: "qkv", .. }));
    assert!(matches!(apply(4, 30), KernelError::Shape { operand: "qkv", .. }));
}
