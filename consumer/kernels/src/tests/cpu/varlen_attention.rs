//! `varlen_attention` on the processor.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::super::{
    DTYPES, Setting, assert_close, cu_seqlens, doubles, lengths, masks, noisy, noisy_in, tensor,
    values,
};
use crate::cpu::simd::Isa;
use crate::{Mask, VarlenAttention};

impl Setting {
    fn check(self, lengths: &[usize], seed: u64) {
        let cu_seqlens = cu_seqlens(lengths);
        let longest = lengths.iter().copied().max().unwrap_or_default() + 2;
        let (bias, _) = noisy(seed + 1, &[self.heads, 2 * longest - 1]);
        let op = self.op(&cu_seqlens, &bias);
        for (dtype, rounding) in DTYPES {
            let shape = [cu_seqlens.tokens(), 3 * self.heads * self.dim];
            let (qkv, qkv_values) = noisy_in(dtype, seed, &shape);
            let expected = op.reference(&doubles(&qkv_values), self.dim);
            // Probabilities are rounded, then the sum. Scores of up to a hundred round before they are exponents.
            let tolerance = 2.0 * rounding + 2e-5;
            Isa::each(|| assert_close(&op.forward(&qkv).unwrap(), &expected, tolerance));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_lengths_and_heads_agree(
        lengths in lengths(),
        heads in 1..4_usize,
        half in prop_oneof![Just(16_usize), Just(32), 1..20_usize],
        mask in masks(),
        scale in prop::option::of(0.01..0.5_f32),
        biased: bool,
        seed in 0..u64::MAX / 2,
    ) {
        Setting { heads, dim: 2 * half, mask, scale, biased }.check(&lengths, seed);
    }
}

#[test]
fn sequences_longer_than_a_tile_of_keys_agree() {
    for mask in [Mask::Bidirectional, Mask::Causal, Mask::Window(3), Mask::Window(600)] {
        Setting { mask, ..Setting::plain(1, 32) }.check(&[513, 1, 1030], 4);
    }
}

#[test]
fn a_bias_that_is_left_to_attention_comes_out_as_if_added_before() {
    const DIM: usize = 20;
    let cu_seqlens = cu_seqlens(&[40, 1, 7]);
    let width = 3 * 2 * DIM;
    let (bias, _) = noisy(10, &[width]);
    let attention = VarlenAttention {
        scale: Some(0.05),
        bias: Some(&bias),
        ..VarlenAttention::new(&cu_seqlens, 2)
    };
    for (dtype, rounding) in DTYPES {
        let (qkv, qkv_values) = noisy_in(dtype, 9, &[48, width]);
        let expected = attention.reference(&doubles(&qkv_values), DIM);
        Isa::each(|| {
            assert_close(&attention.forward(&qkv).unwrap(), &expected, 3.0 * rounding + 2e-5);
        });
    }
}

#[test]
fn tokens_that_are_not_seen_see_the_others_and_change_nothing_for_them() {
    const DIM: usize = 16;
    let lengths = [40, 9, 530];
    let cu_seqlens = cu_seqlens(&lengths);
    let seen = [40, 3, 517];
    let (qkv, qkv_values) = noisy(11, &[lengths.iter().sum(), 3 * 2 * DIM]);
    for mask in [Mask::Bidirectional, Mask::Causal, Mask::Window(20)] {
        let attention =
            VarlenAttention { mask, seen: Some(&seen), ..VarlenAttention::new(&cu_seqlens, 2) };
        let expected = attention.reference(&doubles(&qkv_values), DIM);
        Isa::each(|| assert_close(&attention.forward(&qkv).unwrap(), &expected, 2e-5));
    }
}

#[test]
fn a_query_that_would_see_no_key_is_refused() {
    let cu_seqlens = cu_seqlens(&[4, 30]);
    let (qkv, _) = noisy(12, &[34, 3 * 8]);
    for (mask, seen) in [
        (Mask::Bidirectional, &[4, 0][..]),
        (Mask::Bidirectional, &[5, 30]),
        (Mask::Bidirectional, &[4]),
        (Mask::Window(20), &[4, 9]),
    ] {
        let attention =
            VarlenAttention { mask, seen: Some(seen), ..VarlenAttention::new(&cu_seqlens, 1) };
        assert!(attention.forward(&qkv).is_err(), "{mask:?} {seen:?}");
    }
}

#[test]
fn large_heads_agree() {
    Setting::plain(2, 128).check(&[40, 33], 5);
}

#[test]
fn heads_of_an_odd_size_agree_in_f32_and_are_refused_in_bf16() {
    let (qkv, qkv_values) = noisy(6, &[20, 3 * 2 * 7]);
    let twenty = cu_seqlens(&[20]);
    let attention = VarlenAttention::new(&twenty, 2);
    let expected = attention.reference(&doubles(&qkv_values), 7);
    Isa::each(|| assert_close(&attention.forward(&qkv).unwrap(), &expected, 3e-6));
    assert!(attention.forward(&qkv.to_dtype(DType::BF16).unwrap()).is_err());
}

#[test]
fn a_token_alone_gives_its_own_value() {
    let qkv = tensor(&[1.0, -3.0, 7.5], &[1, 3]);
    let y = VarlenAttention::new(&cu_seqlens(&[1]), 1).forward(&qkv).unwrap();
    assert_eq!(values(&y), [7.5]);
}

#[test]
fn scores_too_large_for_exp_still_give_a_mean() {
    // Scores of 40,000 at each of 600 equal keys: without the running maximum, exp would be infinite.
    let qkv = tensor(&[200.0, 200.0, 3.0].repeat(600), &[600, 3]);
    let y = VarlenAttention::new(&cu_seqlens(&[600]), 1).forward(&qkv).unwrap();
    assert_close(&y, &[3.0; 600], 1e-5);
}

#[test]
fn a_nan_stays_in_its_sequence() {
    for (dtype, _) in DTYPES {
        let mut qkv = vec![0.5; 6 * 3 * 32];
        qkv[0] = f32::NAN;
        let qkv: Tensor = tensor(&qkv, &[6, 96]).to_dtype(dtype).unwrap();
        let cu_seqlens = cu_seqlens(&[3, 3]);
        let y = values(&VarlenAttention::new(&cu_seqlens, 1).forward(&qkv).unwrap());
        assert!(y[..32].iter().all(|value| value.is_nan()));
        assert!(y[3 * 32..].iter().all(|value| *value == 0.5));
    }
}

#[test]
fn what_a_thread_computed_before_leaves_no_trace() {
    let long = cu_seqlens(&[300]);
    let short = cu_seqlens(&[5]);
    for (dtype, _) in DTYPES {
        let (qkv, _) = noisy_in(dtype, 8, &[5, 3 * 20]);
        let attend = || values(&VarlenAttention::new(&short, 1).forward(&qkv).unwrap());
        let before = attend();
        let nan = Tensor::full(f32::NAN, (300, 3 * 64), qkv.device()).unwrap();
        VarlenAttention::new(&long, 1).forward(&nan.to_dtype(dtype).unwrap()).unwrap();
        assert_eq!(attend(), before);
    }
}
