//! `embed_layer_norm` and `add_layer_norm` against LayerNorm in f64.

use proptest::prelude::*;

use super::{assert_close, cu_seqlens, layer_norm, layer_norm_reference, lengths, noisy};
use crate::simd::Isa;
use crate::{AddLayerNorm, EmbedLayerNorm};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_of_any_width_are_normalised(tokens in 0..50_usize, hidden in 2..140_usize, seed in 0..u64::MAX / 2) {
        let (x, x_values) = noisy(seed, &[tokens, hidden]);
        let (residual, residual_values) = noisy(seed + 1, &[tokens, hidden]);
        let (bias, bias_values) = noisy(seed + 2, &[hidden]);
        let op = AddLayerNorm { bias, norm: layer_norm(seed + 3, hidden) };
        let sums = x_values.iter().zip(&residual_values).zip(bias_values.iter().cycle());
        let sums: Vec<f64> = sums.map(|((a, b), c)| f64::from(*a) + f64::from(*b) + f64::from(*c)).collect();
        let expected: Vec<f64> =
            sums.chunks_exact(hidden).flat_map(|row| layer_norm_reference(row, &op.norm)).collect();
        // A row of two nearly equal values has a small variance, which magnifies the rounding of its sums.
        Isa::each(|| assert_close(&op.forward(&x, &residual).unwrap(), &expected, 2e-4));
    }

    #[test]
    fn gathered_rows_are_summed_and_normalised(
        lengths in lengths(),
        hidden in 8..140_usize,
        typed: bool,
        seed in 0..u64::MAX / 2,
    ) {
        let cu_seqlens = cu_seqlens(&lengths);
        let (words, word_values) = noisy(seed, &[50, hidden]);
        let (positions, position_values) = noisy(seed + 1, &[70, hidden]);
        let (types, type_values) = noisy(seed + 2, &[2, hidden]);
        let token_ids: Vec<u32> = (0..cu_seqlens.tokens()).map(|token| (token * 17 % 50) as u32).collect();
        let type_ids: Vec<u32> = (0..cu_seqlens.tokens()).map(|token| (token % 2) as u32).collect();
        let norm = layer_norm(seed + 3, hidden);
        let op = EmbedLayerNorm {
            token_ids: &token_ids,
            type_ids: typed.then_some(&type_ids),
            cu_seqlens: &cu_seqlens,
            norm: &norm,
        };
        let position_of = lengths.iter().flat_map(|&tokens| 0..tokens);
        let expected: Vec<f64> = position_of.enumerate().flat_map(|(token, position)| {
            let word = token_ids[token] as usize;
            let kind = if typed { token % 2 } else { 0 };
            let sum = |column: usize| {
                let at = |table: &[f32], row: usize| f64::from(table[row * hidden + column]);
                at(&word_values, word) + at(&position_values, position) + at(&type_values, kind)
            };
            layer_norm_reference(&(0..hidden).map(sum).collect::<Vec<_>>(), &norm)
        }).collect();
        Isa::each(|| assert_close(&op.forward(&words, &positions, &types).unwrap(), &expected, 1e-5));
    }
}

#[test]
fn a_far_mean_does_not_swallow_the_variance() {
    let hidden = 64;
    let (noise, noise_values) = noisy(7, &[1, hidden]);
    let far = noise.ones_like().unwrap().affine(4096.0, 0.0).unwrap();
    let bias = noise.zeros_like().unwrap().flatten_all().unwrap();
    let op = AddLayerNorm { bias, norm: layer_norm(8, hidden) };
    // The sum rounds to 2^-12; with the one-pass formula (mean square minus squared mean) nothing would remain.
    let row: Vec<f64> = noise_values.iter().map(|&value| f64::from(value + 4096.0)).collect();
    let expected = layer_norm_reference(&row, &op.norm);
    Isa::each(|| assert_close(&op.forward(&noise, &far).unwrap(), &expected, 1e-4));
}
