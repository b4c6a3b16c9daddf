//! A sequence's rows are the same bits alone and among others, in chunks of any size, on any number of threads, in any
//! pages, and after whatever was there before.

use candle_core::DType;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::super::super::{DTYPES, noisy_in};
use super::{Layer, Sequence};
use crate::alone;
use crate::cpu::simd::Isa;

/// As bits, so that zeros of both signs differ and NaN equals itself.
fn bits(outputs: &[Vec<f32>]) -> Vec<Vec<u32>> {
    outputs.iter().map(|output| output.iter().map(|value| value.to_bits()).collect()).collect()
}

impl Layer {
    /// Each sequence whole and alone: what all other ways have to equal.
    fn whole(&self, dtype: DType, sequences: &[Sequence]) -> Vec<Vec<u32>> {
        let pages = self.pages(dtype, sequences);
        let alone = sequences
            .iter()
            .map(|sequence| self.step(&pages, &[(sequence, 0, sequence.tokens())]).remove(0));
        bits(&alone.collect::<Vec<_>>())
    }

    fn check_chunks(&self, lengths: &[usize], chunks: &[usize], seed: u64) {
        for (dtype, _) in DTYPES {
            let sequences = self.sequences(dtype, seed, lengths);
            Isa::each(|| {
                let expected = self.whole(dtype, &sequences);
                for &chunk in chunks {
                    let pages = self.pages(dtype, &sequences);
                    let outputs = bits(&self.play(&pages, &sequences, chunk));
                    assert!(outputs == expected, "chunks of {chunk} in {dtype:?}: {self:?}");
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn chunks_of_any_size_among_others_give_the_bits_of_the_whole_alone(
        lengths in prop::collection::vec(1..150_usize, 1..4),
        group in 1..6_usize,
        kv_heads in 1..3_usize,
        half in prop_oneof![Just(32_usize), Just(48), 1..20_usize],
        chunk in 1..100_usize,
        window in prop::option::of(1..90_usize),
        soft_cap in prop::option::of(0.5..50.0_f32),
        has_sinks: bool,
        normed: bool,
        seed in 0..u64::MAX / 2,
    ) {
        let layer = Layer::plain(group * kv_heads, kv_heads, 2 * half).turned(2 * half);
        let layer = if has_sinks { layer.with_sinks(seed + 20) } else { layer };
        let layer = if normed { layer.normed(seed + 30) } else { layer };
        Layer { window, soft_cap, ..layer }.check_chunks(&lengths, &[chunk], seed);
    }
}

#[test]
fn prompts_longer_than_a_tile_give_one_result_in_chunks_of_1_7_and_32() {
    for (window, soft_cap) in [(None, None), (Some(100), None), (Some(512), Some(20.0))] {
        let layer = Layer::plain(3, 1, 64).turned(64).with_sinks(1);
        let layer = Layer { window, soft_cap, ..layer };
        layer.check_chunks(&[550, 1060], &[1, 7, 32, 512], 11);
    }
}

#[test]
fn heads_of_all_sizes_give_one_result_in_chunks_of_1_7_and_32() {
    for (heads, kv_heads, dim) in [(9, 3, 64), (4, 4, 96), (8, 1, 128), (4, 1, 256), (100, 1, 16)] {
        let layer = Layer::plain(heads, kv_heads, dim).turned(dim);
        layer.check_chunks(&[75, 34], &[1, 7, 32], 12);
    }
}

#[test]
fn a_sequence_gives_the_same_bits_wherever_its_pages_lie() {
    let layer = Layer::plain(4, 2, 64).turned(64);
    for (dtype, _) in DTYPES {
        let mut sequences = layer.sequences(dtype, 13, &[100, 70]);
        let expected = layer.whole(dtype, &sequences);
        for sequence in &mut sequences {
            for page in &mut sequence.table {
                *page = 9 - *page;
            }
        }
        let pages = layer.pages(dtype, &sequences);
        assert!(bits(&layer.play(&pages, &sequences, 50)) == expected);
    }
}

#[test]
fn a_prefix_that_others_wrote_gives_the_bits_of_one_s_own() {
    let layer = Layer::plain(4, 2, 64).turned(64);
    for (dtype, _) in DTYPES {
        let sequences = layer.sequences(dtype, 14, &[90]);
        let expected = layer.whole(dtype, &sequences);
        let first = &sequences[0];
        // Two full pages are the first one's; the last page is another.
        let mut table = first.table.clone();
        table[2] = 5;
        let second = Sequence { qkv: first.qkv.copy().unwrap(), table };
        let both = [second, Sequence { qkv: first.qkv.clone(), table: first.table.clone() }];
        let pages = layer.pages(dtype, &both);
        layer.step(&pages, &[(&both[1], 0, 90)]);
        let step = bits(&layer.step(&pages, &[(&both[0], 64, 26), (&both[1], 89, 1)]));
        let hidden = layer.heads * layer.dim;
        assert!(step[0] == expected[0][64 * hidden..]);
        assert!(step[1] == expected[0][89 * hidden..]);
    }
}

#[test]
fn entries_behind_the_window_are_not_read() {
    let layer = Layer::plain(2, 1, 64).turned(64);
    let layer = Layer { window: Some(40), ..layer };
    for (dtype, _) in DTYPES {
        let mut sequences = layer.sequences(dtype, 15, &[200]);
        let expected = layer.whole(dtype, &sequences);
        let pages = layer.pages(dtype, &sequences);
        layer.step(&pages, &[(&sequences[0], 0, 150)]);
        // The window of position 150 begins at 111: in page 3.
        sequences[0].table[..3].fill(u32::MAX);
        let step = bits(&layer.step(&pages, &[(&sequences[0], 150, 50)]));
        assert!(step[0] == expected[0][150 * 128..]);
    }
}

#[test]
fn a_nan_stays_in_its_sequence() {
    let layer = Layer::plain(4, 2, 64).turned(64);
    for (dtype, _) in DTYPES {
        let mut sequences = layer.sequences(dtype, 16, &[70, 40, 33]);
        let expected = layer.whole(dtype, &sequences);
        let nan = noisy_in(dtype, 1, &[40, layer.width()]).0;
        sequences[1].qkv = (nan * f64::NAN).unwrap();
        let pages = layer.pages(dtype, &sequences);
        let outputs = layer.play(&pages, &sequences, 9);
        assert!(outputs[1].iter().all(|value| value.is_nan()));
        let outputs = bits(&outputs);
        assert!(outputs[0] == expected[0] && outputs[2] == expected[2]);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let layer = Layer::plain(6, 2, 64).turned(64).normed(4);
    for (dtype, _) in DTYPES {
        let sequences = layer.sequences(dtype, 17, &[3, 140, 1, 600]);
        let expected = layer.whole(dtype, &sequences);
        let play = || {
            let pages = layer.pages(dtype, &sequences);
            bits(&layer.play(&pages, &sequences, 61))
        };
        for threads in 1..=5 {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(play) == expected, "{threads} threads");
            assert!(pool.install(|| alone(play)) == expected, "alone among {threads}");
        }
    }
}
