//! `varlen_attention` against softmax in f64, sequence by sequence.

use proptest::prelude::*;

use super::{assert_close, cu_seqlens, lengths, noisy, tensor, values};
use crate::VarlenAttention;
use crate::simd::Isa;

fn reference(qkv: &[f32], lengths: &[usize], heads: usize, dim: usize) -> Vec<f64> {
    let hidden = heads * dim;
    let mut out = Vec::new();
    let mut rest = qkv;
    for &tokens in lengths {
        let (sequence, after) = rest.split_at(tokens * 3 * hidden);
        rest = after;
        let part = |token: usize, part: usize, head: usize| -> Vec<f64> {
            let start = token * 3 * hidden + part * hidden + head * dim;
            sequence[start..start + dim].iter().map(|&value| f64::from(value)).collect()
        };
        for token in 0..tokens {
            for head in 0..heads {
                let query = part(token, 0, head);
                let score = |key: usize| -> f64 {
                    let dot: f64 = query.iter().zip(part(key, 1, head)).map(|(q, k)| q * k).sum();
                    (dot / (dim as f64).sqrt()).exp()
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
    }
    out
}

fn check(lengths: &[usize], heads: usize, dim: usize, seed: u64) {
    let cu_seqlens = cu_seqlens(lengths);
    let (qkv, qkv_values) = noisy(seed, &[cu_seqlens.tokens(), 3 * heads * dim]);
    let expected = reference(&qkv_values, lengths, heads, dim);
    Isa::each(|| {
        let y = VarlenAttention { cu_seqlens: &cu_seqlens, heads }.forward(&qkv).unwrap();
        assert_close(&y, &expected, 2e-6);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_lengths_and_heads_agree(
        lengths in lengths(),
        heads in 1..4_usize,
        dim in prop_oneof![Just(32_usize), Just(64), 1..40_usize],
        seed: u64,
    ) {
        check(&lengths, heads, dim, seed);
    }
}

#[test]
fn sequences_longer_than_a_tile_of_keys_agree() {
    check(&[513, 1, 1030], 1, 32, 4);
}

#[test]
fn large_heads_agree() {
    check(&[40, 33], 2, 128, 5);
}

#[test]
fn a_token_alone_gives_its_own_value() {
    let qkv = tensor(&[1.0, -3.0, 7.5], &[1, 3]);
    let y = VarlenAttention { cu_seqlens: &cu_seqlens(&[1]), heads: 1 }.forward(&qkv).unwrap();
    assert_eq!(values(&y), [7.5]);
}

#[test]
fn scores_too_large_for_exp_still_give_a_mean() {
    // Scores of 40,000 at each of 600 equal keys: without the running maximum, exp would be infinite.
    let qkv = tensor(&[200.0, 200.0, 3.0].repeat(600), &[600, 3]);
    let y = VarlenAttention { cu_seqlens: &cu_seqlens(&[600]), heads: 1 }.forward(&qkv).unwrap();
    assert_close(&y, &[3.0; 600], 1e-5);
}

#[test]
fn a_nan_stays_in_its_sequence() {
    let mut qkv = vec![0.5; 6 * 3 * 32];
    qkv[0] = f32::NAN;
    let cu_seqlens = cu_seqlens(&[3, 3]);
    let y = VarlenAttention { cu_seqlens: &cu_seqlens, heads: 1 }
        .forward(&tensor(&qkv, &[6, 96]))
        .unwrap();
    let y = values(&y);
    assert!(y[..32].iter().all(|value| value.is_nan()));
    assert!(y[3 * 32..].iter().all(|value| *value == 0.5));
}
