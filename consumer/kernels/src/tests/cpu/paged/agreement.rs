//! `paged_attention` on the processor against its reference.

use candle_core::{DType, Device};
use proptest::prelude::*;

use super::super::super::{DTYPES, assert_close, doubles, tensor, values};
use super::{Layer, Sequence, stored};
use crate::cpu::simd::Isa;
use crate::{PagedAttention, Pages, SequenceRows, StepRows};

/// The reference of a whole sequence, from keys and values as they lie in pages and queries as they were turned.
fn reference(layer: &Layer, pages: &Pages, sequence: &Sequence) -> Vec<f64> {
    let whole = SequenceRows { tokens: sequence.tokens(), position: 0, pages: &sequence.table };
    let rows = StepRows::new([whole]).unwrap();
    let qkv = sequence.qkv.copy().unwrap();
    let [keys, lines] = stored(layer, pages, sequence);
    layer.op().apply(&qkv, &rows, pages).unwrap();
    let mut qkv = doubles(&values(&qkv));
    let kv = layer.kv_heads * layer.dim;
    let stored = doubles(&keys);
    let lines = doubles(&lines);
    let pairs = stored.chunks_exact(kv).zip(lines.chunks_exact(kv));
    for (row, (keys, lines)) in qkv.chunks_exact_mut(layer.width()).zip(pairs) {
        let (_, others) = row.split_at_mut(layer.heads * layer.dim);
        others[..kv].copy_from_slice(keys);
        others[kv..].copy_from_slice(lines);
    }
    layer.attention(&rows).reference(&qkv, layer.dim)
}

impl Layer {
    fn check(&self, lengths: &[usize], chunk: usize, seed: u64) {
        for (dtype, rounding) in DTYPES {
            let sequences = self.sequences(dtype, seed, lengths);
            Isa::each(|| {
                let pages = self.pages(dtype, &sequences);
                let outputs = self.play(&pages, &sequences, chunk);
                for (sequence, output) in sequences.iter().zip(outputs) {
                    let expected = reference(self, &pages, sequence);
                    // Probabilities are rounded, then the sum. Scores of up to a hundred round before they are
                    // exponents.
                    let output = tensor(&output, &[output.len()]);
                    assert_close(&output, &expected, 2.0 * rounding + 2e-5);
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_lengths_heads_windows_caps_and_sinks_agree(
        lengths in prop::collection::vec(prop_oneof![Just(1_usize), 2..100_usize], 1..4),
        group in 1..5_usize,
        kv_heads in 1..3_usize,
        half in prop_oneof![Just(32_usize), Just(40), 1..20_usize],
        chunk in prop_oneof![Just(1_usize), Just(7), Just(32), Just(1000)],
        scale in prop::option::of(0.01..0.3_f32),
        window in prop::option::of(1..60_usize),
        soft_cap in prop::option::of(0.5..50.0_f32),
        has_sinks: bool,
        is_bidirectional: bool,
        seed in 0..u64::MAX / 2,
    ) {
        let layer = Layer::plain(group * kv_heads, kv_heads, 2 * half).turned(2 * half);
        let layer = if has_sinks { layer.with_sinks(seed + 20) } else { layer };
        let chunk = if is_bidirectional { 1000 } else { chunk };
        Layer { scale, window, is_bidirectional, soft_cap, ..layer }.check(&lengths, chunk, seed);
    }
}

#[test]
fn sequences_longer_than_a_tile_of_keys_agree() {
    for window in [None, Some(3), Some(600)] {
        let layer = Layer::plain(4, 2, 32).turned(32).with_sinks(3);
        Layer { window, ..layer.clone() }.check(&[513, 1, 1030], 100, 4);
        Layer { window, is_bidirectional: true, ..layer }.check(&[513, 1, 1030], 1030, 4);
    }
}

#[test]
fn large_heads_of_queries_that_share_all_keys_agree() {
    for dim in [64, 96, 128, 256] {
        Layer::plain(5, 1, dim).turned(dim).normed(2).check(&[70, 33], 40, 5);
    }
}

#[test]
fn heads_of_an_odd_size_agree_in_f32_and_are_refused_in_bf16() {
    let layer = Layer::plain(4, 2, 7).turned(4);
    let sequences = layer.sequences(DType::F32, 6, &[70]);
    Isa::each(|| {
        let pages = layer.pages(DType::F32, &sequences);
        let output = layer.play(&pages, &sequences, 20).remove(0);
        let output = tensor(&output, &[output.len()]);
        assert_close(&output, &reference(&layer, &pages, &sequences[0]), 3e-6);
    });
    assert!(Pages::new(1, 2, 7, DType::BF16, &Device::Cpu).is_err());
}

#[test]
fn a_token_alone_gives_its_own_value_and_a_sink_takes_its_share() {
    let layer = Layer::plain(2, 1, 2);
    let mut sequences = layer.sequences(DType::F32, 1, &[1]);
    sequences[0].qkv = tensor(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 7.5, -3.0], &[1, 8]);
    let pages = layer.pages(DType::F32, &sequences);
    assert_eq!(layer.play(&pages, &sequences, 1), [[7.5, -3.0, 7.5, -3.0]]);
    // Scores are 0: beside a sink of 0 half is left, beside one of ln 3 a quarter.
    let sinks = Some(tensor(&[0.0, 3.0_f32.ln()], &[2]));
    let output = Layer { sinks, ..layer }.play(&pages, &sequences, 1).remove(0);
    assert_close(&tensor(&output, &[4]), &[3.75, -1.5, 1.875, -0.75], 1e-6);
}

#[test]
fn scores_too_large_for_exp_still_give_a_mean() {
    // Scores of 40,000 at each of 600 equal keys.
    let layer = Layer::plain(1, 1, 1);
    let mut sequences = layer.sequences(DType::F32, 1, &[600]);
    sequences[0].qkv = tensor(&[200.0, 200.0, 3.0].repeat(600), &[600, 3]);
    let pages = layer.pages(DType::F32, &sequences);
    let output = layer.play(&pages, &sequences, 600).remove(0);
    assert_close(&tensor(&output, &[600]), &[3.0; 600], 1e-5);
}

#[test]
fn a_soft_cap_of_any_size_agrees() {
    for soft_cap in [0.01, 1.0, 30.0, 1e4] {
        let layer = Layer::plain(2, 1, 16);
        Layer { soft_cap: Some(soft_cap), scale: Some(2.0), ..layer }.check(&[50], 50, 8);
    }
}

#[test]
fn queries_alone_read_the_pages_of_another_layer() {
    let layer = Layer::plain(4, 2, 16);
    let sequences = layer.sequences(DType::F32, 9, &[40]);
    let pages = layer.pages(DType::F32, &sequences);
    let expected = layer.play(&pages, &sequences, 40).remove(0);
    let queries = sequences[0].qkv.narrow(1, 0, 64).unwrap().contiguous().unwrap();
    let whole = SequenceRows { tokens: 40, position: 0, pages: &sequences[0].table };
    let rows = StepRows::new([whole]).unwrap();
    let attention = PagedAttention::new(&rows, 4, 2);
    assert_eq!(values(&attention.forward(&queries, &pages).unwrap()), expected);
}
