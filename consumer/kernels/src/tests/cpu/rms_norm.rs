//! `rms_norm` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, noisy_in, rms_norm, tensor, values};
use crate::cpu::simd::Isa;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_of_any_width_are_divided_by_their_size(
        rows in 0..50_usize,
        width in 1..140_usize,
        seed in 0..u64::MAX / 2,
    ) {
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[rows, width]);
            let norm = rms_norm(seed + 1, width);
            let expected = norm.reference(&doubles(&x_values));
            Isa::each(|| assert_close(&norm.forward(&x).unwrap(), &expected, rounding + 1e-5));
        }
    }
}

#[test]
fn a_row_of_zeros_stays_zero() {
    let zeros = tensor(&[0.0; 40], &[1, 40]);
    Isa::each(|| assert_eq!(values(&rms_norm(1, 40).forward(&zeros).unwrap()), [0.0; 40]));
}
