//! Pages on the processor: what `qkv_into_pages` leaves there, and `paged_attention` over it, played step by step as a
//! generator would.

mod agreement;
mod invariance;
mod latent;
mod qkv_into_pages;

use candle_core::{DType, Device, Tensor};

use super::super::{noisy, noisy_in, rms_norm, values};
use crate::{
    PAGE_TOKENS, PagedAttention, Pages, QkvIntoPages, RmsNorm, Rotary, SequenceRows, StepRows,
};

/// Positions that there are angles for.
const POSITIONS: usize = 1200;

/// One layer's attention.
#[derive(Debug, Clone)]
struct Layer {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    rotary: Option<Rotary>,
    norms: Option<[RmsNorm; 2]>,
    scale: Option<f32>,
    window: Option<usize>,
    is_bidirectional: bool,
    soft_cap: Option<f32>,
    sinks: Option<Tensor>,
}

/// A whole sequence: what the linear layer would give of it, and the pages that it may use.
struct Sequence {
    qkv: Tensor,
    table: Vec<u32>,
}

impl Sequence {
    fn tokens(&self) -> usize {
        self.qkv.dims()[0]
    }
}

impl Layer {
    fn plain(heads: usize, kv_heads: usize, dim: usize) -> Self {
        Self {
            heads,
            kv_heads,
            dim,
            rotary: None,
            norms: None,
            scale: None,
            window: None,
            is_bidirectional: false,
            soft_cap: None,
            sinks: None,
        }
    }

    /// With rotations of `turned` values of a head.
    fn turned(self, turned: usize) -> Self {
        Self { rotary: Some(Rotary::new(turned, 10_000.0, POSITIONS).unwrap()), ..self }
    }

    fn normed(self, seed: u64) -> Self {
        let norms = [rms_norm(seed, self.dim), rms_norm(seed + 1, self.dim)];
        Self { norms: Some(norms), ..self }
    }

    fn with_sinks(self, seed: u64) -> Self {
        Self { sinks: Some(noisy(seed, &[self.heads]).0), ..self }
    }

    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    fn op(&self) -> QkvIntoPages<'_> {
        QkvIntoPages {
            rotary: self.rotary.as_ref(),
            q_norm: self.norms.as_ref().map(|norms| &norms[0]),
            k_norm: self.norms.as_ref().map(|norms| &norms[1]),
            heads: self.heads,
            kv_heads: self.kv_heads,
        }
    }

    fn attention<'a>(&'a self, rows: &'a StepRows<'a>) -> PagedAttention<'a> {
        PagedAttention {
            scale: self.scale,
            window: self.window,
            is_bidirectional: self.is_bidirectional,
            soft_cap: self.soft_cap,
            sinks: self.sinks.as_ref(),
            ..PagedAttention::new(rows, self.heads, self.kv_heads)
        }
    }

    /// Sequences of these lengths, whose pages lie in disorder among `pages`.
    fn sequences(&self, dtype: DType, seed: u64, lengths: &[usize]) -> Vec<Sequence> {
        let count: usize = lengths.iter().map(|tokens| tokens.div_ceil(PAGE_TOKENS)).sum();
        // A step that shares no factor with the number of pages visits each once.
        let step = (2..=count + 1).rev().find(|&step| coprime(step, count)).unwrap_or(1);
        let mut pages = (0..count).map(|index| (index * step % count) as u32);
        lengths
            .iter()
            .enumerate()
            .map(|(index, &tokens)| Sequence {
                qkv: noisy_in(dtype, seed + index as u64, &[tokens, self.width()]).0,
                table: pages.by_ref().take(tokens.div_ceil(PAGE_TOKENS)).collect(),
            })
            .collect()
    }

    /// Pages for all of them, full of NaN left over from others.
    fn pages(&self, dtype: DType, sequences: &[Sequence]) -> Pages {
        let last = sequences.iter().flat_map(|sequence| &sequence.table).max();
        let count = last.map_or(0, |&page| page as usize + 1);
        let mut pages = Pages::new(count, self.kv_heads, self.dim, dtype, &Device::Cpu).unwrap();
        let nan = Tensor::full(f32::NAN, pages.store.shape(), &Device::Cpu).unwrap();
        pages.store = nan.to_dtype(dtype).unwrap();
        pages
    }

    /// Some tokens of some sequences as one step: from each `position` so many. Gives their rows of the output.
    fn step(&self, pages: &Pages, parts: &[(&Sequence, usize, usize)]) -> Vec<Vec<f32>> {
        let rows = parts.iter().map(|&(sequence, position, tokens)| SequenceRows {
            tokens,
            position,
            pages: &sequence.table[..(position + tokens).div_ceil(PAGE_TOKENS)],
        });
        let rows = StepRows::new(rows).unwrap();
        let chunks: Vec<Tensor> = parts
            .iter()
            .map(|(sequence, position, tokens)| sequence.qkv.narrow(0, *position, *tokens).unwrap())
            .collect();
        // A copy: queries change in place.
        let qkv = Tensor::cat(&chunks, 0).unwrap().copy().unwrap();
        self.op().apply(&qkv, &rows, pages).unwrap();
        let out = values(&self.attention(&rows).forward(&qkv, pages).unwrap());
        let hidden = self.heads * self.dim;
        rows.cu_seqlens()
            .ranges()
            .map(|range| out[range.start * hidden..range.end * hidden].to_vec())
            .collect()
    }

    /// All sequences side by side in chunks of `chunk` tokens, until each has ended. Gives each one's output.
    fn play(&self, pages: &Pages, sequences: &[Sequence], chunk: usize) -> Vec<Vec<f32>> {
        let mut outputs = vec![Vec::new(); sequences.len()];
        let longest = sequences.iter().map(Sequence::tokens).max().unwrap_or_default();
        for position in (0..longest).step_by(chunk) {
            let running = sequences.iter().filter(|sequence| position < sequence.tokens());
            let parts: Vec<(&Sequence, usize, usize)> = running
                .map(|sequence| (sequence, position, chunk.min(sequence.tokens() - position)))
                .collect();
            let step = self.step(pages, &parts);
            let running = sequences.iter().zip(&mut outputs);
            let running = running.filter(|(sequence, _)| position < sequence.tokens());
            for ((_, output), out) in running.zip(step) {
                output.extend(out);
            }
        }
        outputs
    }
}

fn coprime(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { coprime(b, a % b) }
}

/// A number type's values of a step.
fn step_of(dtype: DType) -> usize {
    if dtype == DType::BF16 { 2 } else { 1 }
}

/// Keys and values of a sequence's tokens as they lie in its pages: `[tokens, kv_heads * dim]` both.
fn stored(layer: &Layer, pages: &Pages, sequence: &Sequence) -> [Vec<f32>; 2] {
    let store = values(&pages.store);
    let step = step_of(pages.dtype());
    let dims = layer.dim.next_multiple_of(32);
    let head_len = (layer.dim + dims) * 32;
    let mut keys = Vec::new();
    let mut lines = Vec::new();
    for token in 0..sequence.tokens() {
        let page = sequence.table[token / 32] as usize;
        let slot = token % 32;
        for head in 0..layer.kv_heads {
            let part = &store[(page * layer.kv_heads + head) * head_len..][..head_len];
            for d in 0..layer.dim {
                keys.push(part[d / step * step * 32 + slot * step + d % step]);
                let panel = &part[layer.dim * 32 + d / 32 * 32 * 32..];
                lines.push(panel[slot / step * step * 32 + d % 32 * step + slot % step]);
            }
        }
    }
    [keys, lines]
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn pages_that_were_never_written_take_no_memory() {
    for (dtype, _) in super::super::DTYPES {
        let before = resident();
        let count = (4 << 30) / Pages::page_bytes(8, 128, dtype);
        let pages = Pages::new(count, 8, 128, dtype, &candle_core::Device::Cpu).unwrap();
        // Other tests run meanwhile.
        let taken = resident().saturating_sub(before);
        assert!(taken < 2 << 30, "{dtype:?}: {taken} bytes of {} pages", pages.count());
    }
}
