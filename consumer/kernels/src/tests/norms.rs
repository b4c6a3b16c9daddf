//! `embed_layer_norm` and `add_layer_norm` against LayerNorm in f64.

use proptest::prelude::*;

use super::{
    DTYPES, assert_close, cu_seqlens, layer_norm, layer_norm_reference, lengths, noisy, noisy_in,
    tensor, values,
};
use crate::simd::Isa;
use crate::{AddLayerNorm, EmbedLayerNorm, LayerNorm};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_of_any_width_are_normalised(
        tokens in 0..50_usize,
        hidden in 2..140_usize,
        with_bias: bool,
        seed in 0..u64::MAX / 2,
    ) {
        for (dtype, rounding) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[tokens, hidden]);
            let (residual, residual_values) = noisy_in(dtype, seed + 1, &[tokens, hidden]);
            let (bias, bias_values) = noisy(seed + 2, &[hidden]);
            let bias_values = if with_bias { bias_values } else { vec![0.0; hidden] };
            let op = AddLayerNorm { bias: with_bias.then_some(bias), norm: layer_norm(seed + 3, hidden) };
            let sums = x_values.iter().zip(&residual_values).zip(bias_values.iter().cycle());
            let sums: Vec<f64> = sums.map(|((a, b), c)| f64::from(*a) + f64::from(*b) + f64::from(*c)).collect();
            let normalised = |sums: &[f64]| -> Vec<f64> {
                sums.chunks_exact(hidden).flat_map(|row| layer_norm_reference(row, &op.norm)).collect()
            };
            // A row of two nearly equal values has a small variance, which magnifies the rounding of its sums.
            let tolerance = rounding + 2e-4;
            Isa::each(|| assert_close(&op.forward(&x, &residual).unwrap(), &normalised(&sums), tolerance));
            Isa::each(|| {
                let (sum, out) = (residual.copy().unwrap(), residual.zeros_like().unwrap());
                op.forward_both_into(&x, &sum, &out).unwrap();
                assert_close(&sum, &sums, rounding);
                // What is normalised is the sum as it was kept.
                let kept: Vec<f64> = values(&sum).iter().map(|value| f64::from(*value)).collect();
                assert_close(&out, &normalised(&kept), tolerance);
            });
        }
    }

    #[test]
    fn gathered_rows_are_summed_and_normalised(
        lengths in lengths(),
        hidden in 8..140_usize,
        typed: bool,
        placed: bool,
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
            let position_of = lengths.iter().flat_map(|&tokens| first_position..first_position + tokens);
            let expected: Vec<f64> = position_of.enumerate().flat_map(|(token, position)| {
                let word = token_ids[token] as usize;
                let kind = if typed { token % 2 } else { 0 };
                let sum = |column: usize| {
                    let at = |table: &[f32], row: usize| f64::from(table[row * hidden + column]);
                    let places = if placed { at(&position_values, position) + at(&type_values, kind) } else { 0.0 };
                    at(&word_values, word) + places
                };
                layer_norm_reference(&(0..hidden).map(sum).collect::<Vec<_>>(), &norm)
            }).collect();
            let (positions, types) = (placed.then_some(&positions), placed.then_some(&types));
            Isa::each(|| assert_close(&op.forward(&words, positions, types).unwrap(), &expected, rounding + 1e-5));
        }
    }
}

#[test]
fn rows_are_normalised_by_themselves() {
    for (dtype, rounding) in DTYPES {
        let (x, x_values) = noisy_in(dtype, 5, &[9, 100]);
        let norm: LayerNorm = layer_norm(6, 100);
        let x_values: Vec<f64> = x_values.iter().map(|value| f64::from(*value)).collect();
        let expected: Vec<f64> =
            x_values.chunks_exact(100).flat_map(|row| layer_norm_reference(row, &norm)).collect();
        Isa::each(|| assert_close(&norm.forward(&x).unwrap(), &expected, rounding + 1e-5));
    }
}

#[test]
fn a_far_mean_does_not_swallow_the_variance() {
    let hidden = 64;
    let (noise, noise_values) = noisy(7, &[1, hidden]);
    let far = tensor(&vec![4096.0; hidden], &[1, hidden]);
    let op = AddLayerNorm { bias: None, norm: layer_norm(8, hidden) };
    // The sum rounds to 2^-12; with the one-pass formula (mean square minus squared mean) nothing would remain.
    let row: Vec<f64> = noise_values.iter().map(|&value| f64::from(value + 4096.0)).collect();
    let expected = layer_norm_reference(&row, &op.norm);
    Isa::each(|| assert_close(&op.forward(&noise, &far).unwrap(), &expected, 1e-4));
}
