//! `rotary` on the processor.

use candle_core::DType;
use proptest::prelude::*;

use super::super::{DTYPES, assert_close, cu_seqlens, doubles, lengths, noisy_in, values};
use crate::cpu::simd::Isa;
use crate::ops::rotary::reference;
use crate::{KernelError, Rotary};

const BASE: f64 = 10_000.0;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn queries_and_keys_turn_with_their_positions_and_values_stay(
        lengths in lengths(),
        heads in 1..4_usize,
        half in 1..20_usize,
        seed: u64,
    ) {
        let cu_seqlens = cu_seqlens(&lengths);
        let dim = 2 * half;
        let rotary = Rotary::new(dim, BASE, 70).unwrap();
        for (dtype, rounding) in DTYPES {
            let shape = [cu_seqlens.tokens(), 3 * heads * dim];
            let mut expected = doubles(&noisy_in(dtype, seed, &shape).1);
            reference(&mut expected, &cu_seqlens, heads, dim, BASE);
            Isa::each(|| {
                let qkv = noisy_in(dtype, seed, &shape).0;
                rotary.apply(&qkv, &cu_seqlens, heads).unwrap();
                assert_close(&qkv, &expected, rounding + 1e-6);
            });
        }
    }
}

#[test]
fn positions_without_an_angle_are_refused() {
    let rotary = Rotary::new(4, BASE, 3).unwrap();
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
