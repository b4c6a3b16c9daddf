//! `varlen_attention` against softmax in f64, sequence by sequence.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::{DTYPES, assert_close, cu_seqlens, lengths, noisy, noisy_in, tensor, values};
use crate::simd::Isa;
use crate::{Mask, VarlenAttention};

/// What one run is about.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) mask: Mask,
    pub(super) scale: Option<f32>,
    /// Whether distances are biased.
    pub(super) biased: bool,
}

impl Setting {
    pub(super) fn plain(heads: usize, dim: usize) -> Self {
        Self { heads, dim, mask: Mask::Bidirectional, scale: None, biased: false }
    }

    fn sees(self, query: usize, key: usize) -> bool {
        match self.mask {
            Mask::Bidirectional => true,
            Mask::Causal => key <= query,
            Mask::Window(distance) => key.abs_diff(query) <= distance,
        }
    }

    /// `bias`: a row a head, the middle one for a distance of 0.
    pub(super) fn reference(self, qkv: &[f32], lengths: &[usize], bias: &[f32]) -> Vec<f64> {
        let Self { heads, dim, .. } = self;
        let hidden = heads * dim;
        let width = bias.len() / heads;
        let scale = self.scale.map_or(1.0 / (dim as f64).sqrt(), f64::from);
        let mut out = Vec::new();
        let mut rest = qkv;
        for &tokens in lengths {
            let (sequence, after) = rest.split_at(tokens * 3 * hidden);
            rest = after;
            let part = |token: usize, part: usize, head: usize| {
                let start = token * 3 * hidden + part * hidden + head * dim;
                sequence[start..start + dim].iter().map(|&value| f64::from(value))
            };
            for (query, head) in
                (0..tokens).flat_map(|query| (0..heads).map(move |head| (query, head)))
            {
                let score = |key: usize| -> f64 {
                    let dot: f64 =
                        part(query, 0, head).zip(part(key, 1, head)).map(|(q, k)| q * k).sum();
                    let bias = f64::from(bias[head * width + width / 2 + key - query]);
                    if self.sees(query, key) {
                        (dot * scale + if self.biased { bias } else { 0.0 }).exp()
                    } else {
                        0.0
                    }
                };
                let scores: Vec<f64> = (0..tokens).map(score).collect();
                let total: f64 = scores.iter().sum();
                let mut sums = vec![0.0; dim];
                for (key, score) in scores.iter().enumerate() {
                    for (sum, value) in sums.iter_mut().zip(part(key, 2, head)) {
                        *sum += score / total * value;
                    }
                }
                out.extend(sums);
            }
        }
        out
    }

    fn check(self, lengths: &[usize], seed: u64) {
        let cu_seqlens = cu_seqlens(lengths);
        let longest = lengths.iter().copied().max().unwrap_or_default() + 2;
        let (bias, bias_values) = noisy(seed + 1, &[self.heads, 2 * longest - 1]);
        for (dtype, rounding) in DTYPES {
            let shape = [cu_seqlens.tokens(), 3 * self.heads * self.dim];
            let (qkv, qkv_values) = noisy_in(dtype, seed, &shape);
            let expected = self.reference(&qkv_values, lengths, &bias_values);
            Isa::each(|| {
                let attention = VarlenAttention {
                    mask: self.mask,
                    scale: self.scale,
                    distance_bias: self.biased.then_some(&bias),
                    ..VarlenAttention::new(&cu_seqlens, self.heads)
                };
                // Probabilities are rounded, then the sum. Scores of up to a hundred round before they are exponents.
                assert_close(&attention.forward(&qkv).unwrap(), &expected, 2.0 * rounding + 2e-5);
            });
        }
    }
}

pub(super) fn masks() -> impl Strategy<Value = Mask> {
    prop_oneof![Just(Mask::Bidirectional), Just(Mask::Causal), (0..50_usize).prop_map(Mask::Window)]
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
    let (heads, dim, lengths) = (2, 20, [40, 1, 7]);
    let (cu_seqlens, width) = (cu_seqlens(&lengths), 3 * heads * dim);
    let (bias, bias_values) = noisy(10, &[width]);
    for (dtype, rounding) in DTYPES {
        let (qkv, qkv_values) = noisy_in(dtype, 9, &[48, width]);
        let sums: Vec<f32> =
            qkv_values.iter().zip(bias_values.iter().cycle()).map(|(x, bias)| x + bias).collect();
        let setting = Setting { scale: Some(0.05), ..Setting::plain(heads, dim) };
        let expected = setting.reference(&sums, &lengths, &[0.0; 2 * 79]);
        let attention = VarlenAttention {
            scale: setting.scale,
            bias: Some(&bias),
            ..VarlenAttention::new(&cu_seqlens, heads)
        };
        Isa::each(|| {
            assert_close(&attention.forward(&qkv).unwrap(), &expected, 3.0 * rounding + 2e-5);
        });
    }
}

#[test]
fn large_heads_agree() {
    Setting::plain(2, 128).check(&[40, 33], 5);
}

#[test]
fn heads_of_an_odd_size_agree_in_f32_and_are_refused_in_bf16() {
    let (qkv, qkv_values) = noisy(6, &[20, 3 * 2 * 7]);
    let setting = Setting::plain(2, 7);
    let expected = setting.reference(&qkv_values, &[20], &[0.0; 78]);
    let twenty = cu_seqlens(&[20]);
    let attention = VarlenAttention::new(&twenty, 2);
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
    let (long, short) = (cu_seqlens(&[300]), cu_seqlens(&[5]));
    for (dtype, _) in DTYPES {
        let (qkv, _) = noisy_in(dtype, 8, &[5, 3 * 20]);
        let attend = || values(&VarlenAttention::new(&short, 1).forward(&qkv).unwrap());
        let before = attend();
        let nan = Tensor::full(f32::NAN, (300, 3 * 64), qkv.device()).unwrap();
        VarlenAttention::new(&long, 1).forward(&nan.to_dtype(dtype).unwrap()).unwrap();
        assert_eq!(attend(), before);
    }
}
