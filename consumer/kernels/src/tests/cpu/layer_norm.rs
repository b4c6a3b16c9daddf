//! `layer_norm` on the processor.

use super::super::{DTYPES, assert_close, doubles, layer_norm, noisy_in};
use crate::LayerNorm;
use crate::cpu::simd::Isa;

#[test]
fn rows_are_normalised_by_themselves() {
    for (dtype, rounding) in DTYPES {
        let (x, x_values) = noisy_in(dtype, 5, &[9, 100]);
        let norm: LayerNorm = layer_norm(6, 100);
        let expected = norm.reference(&doubles(&x_values));
        Isa::each(|| assert_close(&norm.forward(&x).unwrap(), &expected, rounding + 1e-5));
    }
}
