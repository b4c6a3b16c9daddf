//! `gate` on the processor.

use candle_core::DType;
use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, noisy_in};
use crate::cpu::simd::Isa;
use crate::{Activation, Gate, KernelError};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_half_gates_the_other(tokens in 0..40_usize, inner in 1..100_usize, which in 0..3_usize, seed: u64) {
        let activation = [Activation::Silu, Activation::GeluTanh, Activation::Gelu][which];
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, 2 * inner]);
            let gate = Gate { activation };
            let expected = gate.reference(&doubles(&x_values), inner);
            Isa::each(|| assert_close(&gate.forward(&x).unwrap(), &expected, rounding + 4e-6));
        }
    }
}

#[test]
fn halves_that_are_none_are_refused() {
    let odd = noisy_in(DType::F32, 1, &[2, 5]).0;
    assert!(matches!(
        Gate { activation: Activation::Gelu }.forward(&odd),
        Err(KernelError::Shape { operand: "x", .. })
    ));
}
