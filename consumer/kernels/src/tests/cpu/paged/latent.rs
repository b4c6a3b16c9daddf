//! Latent attention on the processor: `latent_into_pages`, and `paged_attention` over values that are the first ones of
//! their keys.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::super::super::{DTYPES, assert_close, doubles, noisy_in, rms_norm, tensor, values};
use super::{POSITIONS, step_of};
use crate::cpu::simd::Isa;
use crate::{
    LatentIntoPages, PAGE_TOKENS, PagedAttention, Pages, RmsNorm, Rotary, SequenceRows, StepRows,
    alone,
};

/// One layer's attention.
#[derive(Debug, Clone)]
struct Latent {
    heads: usize,
    rank: usize,
    turned: usize,
    /// Values of a query's head that do not turn.
    plain: usize,
    norm: RmsNorm,
    rotary: Option<Rotary>,
    is_interleaved: bool,
    scale: Option<f32>,
    window: Option<usize>,
}

/// A whole sequence: what the linear layers would give of it, and the pages that it may use.
struct Sequence {
    latent: Tensor,
    q: Tensor,
    query: Tensor,
    table: Vec<u32>,
}

impl Sequence {
    fn tokens(&self) -> usize {
        self.latent.dims()[0]
    }
}

impl Latent {
    fn new(heads: usize, rank: usize, turned: usize) -> Self {
        Self {
            heads,
            rank,
            turned,
            plain: 6,
            norm: rms_norm(1, rank),
            rotary: Some(Rotary::new(turned, 10_000.0, POSITIONS).unwrap()),
            is_interleaved: false,
            scale: None,
            window: None,
        }
    }

    fn op(&self) -> LatentIntoPages<'_> {
        LatentIntoPages {
            rotary: self.rotary.as_ref(),
            is_interleaved: self.is_interleaved,
            norm: &self.norm,
            heads: self.heads,
        }
    }

    fn dim(&self) -> usize {
        self.rank + self.turned
    }

    fn attention<'a>(&self, rows: &'a StepRows<'a>) -> PagedAttention<'a> {
        let attention = PagedAttention::new(rows, self.heads, 1);
        PagedAttention { scale: self.scale, window: self.window, ..attention }
    }

    /// Sequences of these lengths, the last one's pages first.
    fn sequences(&self, dtype: DType, seed: u64, lengths: &[usize]) -> Vec<Sequence> {
        let mut left: u32 = lengths.iter().map(|tokens| tokens.div_ceil(PAGE_TOKENS) as u32).sum();
        let mut sequences = Vec::new();
        for (index, &tokens) in lengths.iter().enumerate() {
            let seed = seed + 3 * index as u64;
            let noise = |seed, width: usize| noisy_in(dtype, seed, &[tokens, width]).0;
            let pages = tokens.div_ceil(PAGE_TOKENS) as u32;
            sequences.push(Sequence {
                latent: noise(seed, self.dim()),
                q: noise(seed + 1, self.heads * (self.plain + self.turned)),
                query: noise(seed + 2, self.heads * self.dim()),
                table: (left - pages..left).rev().collect(),
            });
            left -= pages;
        }
        sequences
    }

    /// Pages for all of them, full of NaN left over from others.
    fn pages(&self, dtype: DType, sequences: &[Sequence]) -> Pages {
        let count = sequences.iter().map(|sequence| sequence.table.len()).sum();
        let mut pages = Pages::latent(count, self.dim(), self.rank, dtype, &Device::Cpu).unwrap();
        let nan = Tensor::full(f32::NAN, pages.store.shape(), &Device::Cpu).unwrap();
        pages.store = nan.to_dtype(dtype).unwrap();
        pages
    }

    /// Some tokens of some sequences as one step: from each `position` so many. Gives each one's queries and output.
    fn step(&self, pages: &Pages, parts: &[(&Sequence, usize, usize)]) -> Vec<[Vec<f32>; 2]> {
        let rows = parts.iter().map(|&(sequence, position, tokens)| SequenceRows {
            tokens,
            position,
            pages: &sequence.table[..(position + tokens).div_ceil(PAGE_TOKENS)],
        });
        let rows = StepRows::new(rows).unwrap();
        let side_by_side = |of: fn(&Sequence) -> &Tensor| {
            let part = |(sequence, position, tokens): &(&Sequence, usize, usize)| {
                of(sequence).narrow(0, *position, *tokens).unwrap()
            };
            let parts: Vec<Tensor> = parts.iter().map(part).collect();
            // A copy: queries change in place.
            Tensor::cat(&parts, 0).unwrap().copy().unwrap()
        };
        let query = side_by_side(|sequence| &sequence.query);
        let [latent, q] = [side_by_side(|sequence| &sequence.latent), side_by_side(|s| &s.q)];
        self.op().apply(&latent, &q, &rows, &query, pages).unwrap();
        let out = values(&self.attention(&rows).forward(&query, pages).unwrap());
        let query = values(&query);
        let part = |values: &[f32], range: &std::ops::Range<usize>, width: usize| {
            values[range.start * width..range.end * width].to_vec()
        };
        let [wide, narrow] = [self.dim(), self.rank].map(|dim| dim * self.heads);
        let ranges = rows.cu_seqlens().ranges();
        ranges.map(|range| [part(&query, &range, wide), part(&out, &range, narrow)]).collect()
    }

    /// All sequences side by side in chunks of `chunk` tokens. Gives each one's queries and output.
    fn play(&self, pages: &Pages, sequences: &[Sequence], chunk: usize) -> Vec<[Vec<f32>; 2]> {
        let mut made = vec![[Vec::new(), Vec::new()]; sequences.len()];
        let longest = sequences.iter().map(Sequence::tokens).max().unwrap_or_default();
        for position in (0..longest).step_by(chunk) {
            let running: Vec<usize> =
                (0..sequences.len()).filter(|&at| position < sequences[at].tokens()).collect();
            let part = |&at: &usize| {
                let sequence = &sequences[at];
                (sequence, position, chunk.min(sequence.tokens() - position))
            };
            let step = self.step(pages, &running.iter().map(part).collect::<Vec<_>>());
            for (at, [query, out]) in running.into_iter().zip(step) {
                made[at][0].extend(query);
                made[at][1].extend(out);
            }
        }
        made
    }

    /// Keys of a sequence's tokens as they lie in its pages.
    fn stored(&self, pages: &Pages, sequence: &Sequence) -> Vec<f32> {
        let store = values(&pages.store);
        let step = step_of(pages.dtype());
        let mut keys = Vec::new();
        for token in 0..sequence.tokens() {
            let page = &store[sequence.table[token / 32] as usize * self.dim() * 32..];
            let value = |d: usize| page[d / step * step * 32 + token % 32 * step + d % step];
            keys.extend((0..self.dim()).map(value));
        }
        keys
    }

    fn check(&self, lengths: &[usize], chunk: usize, seed: u64) {
        for (dtype, rounding) in DTYPES {
            let sequences = self.sequences(dtype, seed, lengths);
            Isa::each(|| {
                let pages = self.pages(dtype, &sequences);
                let made = self.play(&pages, &sequences, chunk);
                for (sequence, [query, out]) in sequences.iter().zip(made) {
                    let of = |tensor: &Tensor| doubles(&values(tensor));
                    let [latent, q] = [of(&sequence.latent), of(&sequence.q)];
                    let [keys, turned] = self.op().reference(&latent, &q, [self.rank, self.turned]);
                    let stored = self.stored(&pages, sequence);
                    assert_close(&tensor(&stored, &[stored.len()]), &keys, rounding + 1e-5);
                    let heads = query.chunks_exact(self.dim());
                    let last = heads.clone().flat_map(|head| head[self.rank..].to_vec());
                    let last: Vec<f32> = last.collect();
                    assert_close(&tensor(&last, &[last.len()]), &turned, rounding + 1e-5);
                    let before = values(&sequence.query);
                    for (after, before) in heads.zip(before.chunks_exact(self.dim())) {
                        assert_eq!(after[..self.rank], before[..self.rank]);
                    }
                    let rows = StepRows::new([]).unwrap();
                    let expected = self.attention(&rows).reference_latent(
                        &doubles(&query),
                        &doubles(&stored),
                        [self.dim(), self.rank],
                    );
                    // Probabilities are rounded, then the sum.
                    let out = tensor(&out, &[out.len()]);
                    assert_close(&out, &expected, 2.0 * rounding + 2e-5);
                }
            });
        }
    }

    /// Each sequence whole and alone, as bits.
    fn whole(&self, dtype: DType, sequences: &[Sequence]) -> Vec<Vec<u32>> {
        let pages = self.pages(dtype, sequences);
        let alone = |sequence: &Sequence| {
            let step = self.step(&pages, &[(sequence, 0, sequence.tokens())]);
            bits(&step[0][1])
        };
        sequences.iter().map(alone).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_sizes_windows_and_chunks_agree(
        lengths in prop::collection::vec(prop_oneof![Just(1_usize), 2..100_usize], 1..4),
        heads in 1..20_usize,
        rank in prop_oneof![Just(32_usize), Just(64), 1..50_usize],
        half in 1..10_usize,
        chunk in prop_oneof![Just(1_usize), Just(7), Just(32), Just(1000)],
        is_interleaved: bool,
        turns: bool,
        scale in prop::option::of(0.01..0.3_f32),
        window in prop::option::of(1..60_usize),
        seed in 0..u64::MAX / 2,
    ) {
        // In bf16 keys have an even size.
        let rank = rank.next_multiple_of(2);
        let mut layer = Latent::new(heads, rank, 2 * half);
        layer.rotary = layer.rotary.filter(|_| turns);
        Latent { is_interleaved, scale, window, ..layer }.check(&lengths, chunk, seed);
    }
}

#[test]
fn sequences_longer_than_a_tile_of_keys_agree() {
    Latent::new(5, 40, 8).check(&[513, 1, 1030], 100, 4);
}

#[test]
fn sizes_of_deepseek_agree() {
    Latent::new(130, 512, 64).check(&[35], 35, 5);
}

#[test]
fn chunks_batch_mates_and_threads_change_no_bit() {
    let layer = Latent::new(30, 64, 16);
    for layer in [layer.clone(), Latent { window: Some(50), ..layer }] {
        for (dtype, _) in DTYPES {
            let sequences = layer.sequences(dtype, 11, &[550, 3, 75, 1]);
            let expected = layer.whole(dtype, &sequences);
            let play = |chunk: usize| {
                let pages = layer.pages(dtype, &sequences);
                let made = layer.play(&pages, &sequences, chunk);
                made.iter().map(|[_, out]| bits(out)).collect::<Vec<_>>()
            };
            for chunk in [7, 32, 512] {
                assert!(play(chunk) == expected, "chunks of {chunk}");
            }
            for threads in 1..=5 {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(pool.install(|| play(61)) == expected, "{threads} threads");
                assert!(pool.install(|| alone(|| play(61))) == expected);
            }
        }
    }
}

#[test]
fn tokens_one_by_one_give_the_bits_of_the_whole() {
    let layer = Latent::new(3, 24, 8);
    for (dtype, _) in DTYPES {
        let sequences = layer.sequences(dtype, 12, &[100, 40]);
        Isa::each(|| {
            let expected = layer.whole(dtype, &sequences);
            let pages = layer.pages(dtype, &sequences);
            let made = layer.play(&pages, &sequences, 1);
            assert!(made.iter().zip(&expected).all(|([_, out], expected)| bits(out) == *expected));
        });
    }
}

#[test]
fn a_prefix_that_another_wrote_gives_the_bits_of_one_s_own() {
    let layer = Latent::new(4, 64, 16);
    for (dtype, _) in DTYPES {
        let mut sequences = layer.sequences(dtype, 14, &[90, 90]);
        let expected = layer.whole(dtype, &sequences);
        let pages = layer.pages(dtype, &sequences);
        layer.step(&pages, &[(&sequences[0], 0, 90)]);
        // Two full pages are the first one's; the last page is the second one's own.
        let [first, second] = &mut sequences[..] else { unreachable!() };
        second.table[..2].copy_from_slice(&first.table[..2]);
        for (to, from) in [&mut second.latent, &mut second.q, &mut second.query].into_iter().zip([
            &first.latent,
            &first.q,
            &first.query,
        ]) {
            *to = from.copy().unwrap();
        }
        let step = layer.step(&pages, &[(&sequences[1], 64, 26)]);
        assert!(bits(&step[0][1]) == expected[0][64 * 4 * 64..]);
    }
}
