//! `qkv_into_pages` on the processor.

use candle_core::DType;
use proptest::prelude::*;

use super::super::super::{DTYPES, assert_close, doubles, noisy_in, tensor, values};
use super::{Layer, stored};
use crate::cpu::simd::Isa;
use crate::ops::step_rows::{SequenceRows, StepRows};
use crate::{PAGE_TOKENS, QkvIntoPages, Rotary};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn queries_stay_and_keys_and_values_lie_in_the_pages_of_their_positions(
        lengths in prop::collection::vec(0..100_usize, 1..4),
        group in 1..4_usize,
        kv_heads in 1..4_usize,
        half in prop_oneof![Just(32_usize), 1..40_usize],
        turned in prop::option::of(0.1..1.0_f64),
        normed: bool,
        chunk in prop_oneof![Just(1_usize), Just(7), Just(32), Just(1000)],
        seed in 0..u64::MAX / 2,
    ) {
        let dim = 2 * half;
        let mut layer = Layer::plain(group * kv_heads, kv_heads, dim);
        if let Some(share) = turned {
            layer = layer.turned((share * half as f64).ceil() as usize * 2);
        }
        if normed {
            layer = layer.normed(seed + 10);
        }
        for (dtype, rounding) in DTYPES {
            let sequences = layer.sequences(dtype, seed, &lengths);
            Isa::each(|| {
                let pages = layer.pages(dtype, &sequences);
                layer.play(&pages, &sequences, chunk);
                for sequence in &sequences {
                    let mut expected = doubles(&values(&sequence.qkv));
                    let whole = SequenceRows {
                        tokens: sequence.tokens(),
                        position: 0,
                        pages: &sequence.table,
                    };
                    let rows = StepRows::new([whole]).unwrap();
                    layer.op().reference(&mut expected, &rows, dim);
                    let part = |first: usize, heads: usize| -> Vec<f64> {
                        let rows = expected.chunks_exact(layer.width());
                        rows.flat_map(|row| row[first * dim..][..heads * dim].to_vec()).collect()
                    };
                    let stored = stored(&layer, &pages, sequence);
                    for (index, stored) in stored.iter().enumerate() {
                        let expected = part(layer.heads + index * kv_heads, kv_heads);
                        let stored = tensor(stored, &[stored.len()]);
                        // The tables round angles' cosines, and a norm its sum.
                        assert_close(&stored, &expected, rounding + 1e-5);
                    }
                    let qkv = sequence.qkv.copy().unwrap();
                    layer.op().apply(&qkv, &rows, &pages).unwrap();
                    let qkv = values(&qkv);
                    let queries: Vec<f32> = qkv
                        .chunks_exact(layer.width())
                        .flat_map(|row| row[..layer.heads * dim].to_vec())
                        .collect();
                    let queries = tensor(&queries, &[queries.len()]);
                    assert_close(&queries, &part(0, layer.heads), rounding + 1e-5);
                }
            });
        }
    }
}

#[test]
fn an_amplitude_stretches_what_is_turned_and_nothing_else() {
    const DIM: usize = 12;
    let frequencies = [1.0, 0.3];
    let plain = Rotary::of_frequencies(&frequencies, 40).unwrap();
    let stretched = Rotary::of_scaled_frequencies(&frequencies, 1.5, 40).unwrap();
    let layer = Layer::plain(1, 1, DIM);
    let queries = |rotary: &Rotary| {
        let sequences = layer.sequences(DType::F32, 3, &[40]);
        let pages = layer.pages(DType::F32, &sequences);
        let whole = SequenceRows { tokens: 40, position: 0, pages: &sequences[0].table };
        let qkv = sequences[0].qkv.copy().unwrap();
        let op = QkvIntoPages { rotary: Some(rotary), ..layer.op() };
        op.apply(&qkv, &StepRows::new([whole]).unwrap(), &pages).unwrap();
        values(&qkv.narrow(1, 0, DIM).unwrap().contiguous().unwrap())
    };
    let plain = queries(&plain);
    for (index, (stretched, plain)) in queries(&stretched).iter().zip(&plain).enumerate() {
        let factor = if index % DIM < 4 { 1.5 } else { 1.0 };
        assert!((stretched - plain * factor).abs() < 1e-5, "value {index}");
    }
}

#[test]
fn a_page_s_first_token_leaves_nothing_of_its_former_values() {
    for (dtype, _) in DTYPES {
        let layer = Layer::plain(2, 2, 40);
        let sequences = layer.sequences(dtype, 5, &[1]);
        let pages = layer.pages(dtype, &sequences);
        layer.play(&pages, &sequences, 1);
        let store = values(&pages.store);
        let head = (40 + 64) * PAGE_TOKENS;
        for part in store.chunks_exact(head) {
            let lines = &part[40 * PAGE_TOKENS..];
            assert!(lines.iter().all(|value| value.is_finite()));
            assert_eq!(lines.iter().filter(|value| **value != 0.0).count(), 40);
        }
    }
}

#[test]
fn tokens_of_a_step_go_nowhere_else() {
    for (dtype, _) in DTYPES {
        let layer = Layer::plain(2, 1, 64).turned(64);
        let sequences = layer.sequences(dtype, 7, &[70, 45]);
        let pages = layer.pages(dtype, &sequences);
        layer.play(&pages, &sequences, 45);
        let before = stored(&layer, &pages, &sequences[0]);
        // The other one again, with other values.
        let qkv = noisy_in(dtype, 99, &[45, layer.width()]).0;
        let again = super::Sequence { qkv, table: sequences[1].table.clone() };
        layer.step(&pages, &[(&again, 0, 45)]);
        assert_eq!(stored(&layer, &pages, &sequences[0]), before);
    }
}
