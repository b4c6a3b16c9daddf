//! `embed_layer_norm` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, cu_seqlens, doubles, layer_norm, lengths, noisy_in};
use crate::EmbedLayerNorm;
use crate::cpu::simd::Isa;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gathered_rows_are_summed_and_normalised(
        lengths in lengths(),
        hidden in 8..140_usize,
        typed: bool,
        positioned: bool,
        first_position in 0..3_usize,
        seed in 0..u64::MAX / 2,
    ) {
        let cu_seqlens = cu_seqlens(&lengths);
        let token_ids: Vec<u32> = (0..cu_seqlens.tokens()).map(|token| (token * 17 % 50) as u32).collect();
        let type_ids: Vec<u32> = (0..cu_seqlens.tokens()).map(|token| (token % 2) as u32).collect();
        let norm = layer_norm(seed + 3, hidden);
        let op = EmbedLayerNorm {
            token_ids: &token_ids,
            type_ids: typed.then_some(&type_ids),
            cu_seqlens: &cu_seqlens,
            first_position,
            norm: &norm,
        };
        for (dtype, rounding) in DTYPES {
            let (words, word_values) = noisy_in(dtype, seed, &[50, hidden]);
            let (positions, position_values) = noisy_in(dtype, seed + 1, &[73, hidden]);
            let (types, type_values) = noisy_in(dtype, seed + 2, &[2, hidden]);
            let words_f64 = doubles(&word_values);
            let positions_f64 = doubles(&position_values);
            let types_f64 = doubles(&type_values);
            let expected = op.reference(
                &words_f64,
                positioned.then_some(&positions_f64[..]),
                positioned.then_some(&types_f64[..]),
            );
            let positions = positioned.then_some(&positions);
            let types = positioned.then_some(&types);
            Isa::each(|| assert_close(&op.forward(&words, positions, types).unwrap(), &expected, rounding + 1e-5));
        }
    }
}
