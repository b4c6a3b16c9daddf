//! `paged_attention`: attention of a step's queries to the keys of their sequences, which lie in pages: causal, or of
//! whole sequences in both directions.
//!
//! - formula: per sequence and head: `y = softmax(cap(q * transpose(k) * scale)) * v` over the keys up to the query's
//!   own, or the last `window` of them, or as many on either side; `cap(s) = soft_cap * tanh(s / soft_cap)`; with a
//!   sink, `exp(sink)` is added to the sum that probabilities are divided by
//! - shapes: `qkv`: `[tokens, heads * dim or more]`, a token's queries first; `y`: `[tokens, heads * value dim]`; query
//!   head `h` sees the keys of head `h / (heads / kv_heads)`; `sinks`: `[heads]`. Values are as wide as keys, or of
//!   latent pages the first ones of their keys
//! - dtype: f32, or bf16 with scores, sums and exponentials in f32, as the pages; sinks are f32
//! - memory traffic: queries once, `y` once; keys and values once for a few dozen rows of queries
//! - numerics: keys are taken in tiles of 512 from position 0 on, each under its own maximum, and tiles are added in
//!   the order of positions: the same sums whichever rows share a step, so what is computed again is what was
//!   remembered, by bits. As `varlen_attention` otherwise; a soft cap adds 3e-7 of itself
//! - source: as `varlen_attention`; Shazeer 2019 and Ainslie et al. 2023 (shared keys); Beltagy et al. 2020 (windows);
//!   Riviere et al. 2024 (soft cap); Xiao et al. 2023 (sinks); Kwon et al. 2023 (pages); `DeepSeek`-AI 2024 (values
//!   that are a prefix of their keys: multi-head latent attention with its projections absorbed)

use candle_core::{DType, Tensor};

use super::operand::{Operand, share_no_memory};
use super::pages::Pages;
use super::step_rows::StepRows;
use crate::error::KernelError;

pub(crate) const OP: &str = "paged_attention";

/// Attention of a step's queries to the keys in pages, their own among them
/// ([`QkvIntoPages`](crate::QkvIntoPages) or [`LatentIntoPages`](crate::LatentIntoPages) wrote them).
#[derive(Debug, Clone, Copy)]
pub struct PagedAttention<'a> {
    /// The step's rows.
    pub rows: &'a StepRows<'a>,
    /// Heads of queries: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys, and of values.
    pub kv_heads: usize,
    /// The factor of scores, above zero; `None` is one over the root of a head's size.
    pub scale: Option<f32>,
    /// How many keys a query sees at most, its own among them; `None` where it sees all up to its own.
    pub window: Option<usize>,
    /// Whether a query sees the keys after its own too: all, or with its own as many as `window`. The step then has
    /// whole sequences, from their first token on.
    pub is_bidirectional: bool,
    /// Scaled scores are bent to stay within this, above zero.
    pub soft_cap: Option<f32>,
    /// `[heads]`, f32: a score of each head that takes part in the softmax and has no value.
    pub sinks: Option<&'a Tensor>,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, heads * dim or more]`
    pub(crate) qkv: &'a Tensor,
    pub(crate) pages: &'a Pages,
    /// `[tokens, heads * value dim]`; written.
    pub(crate) out: &'a Tensor,
}

impl<'a> PagedAttention<'a> {
    /// Every query sees all keys up to its own, scores are scaled as usual, and nothing is bent or added.
    pub fn new(rows: &'a StepRows<'a>, heads: usize, kv_heads: usize) -> Self {
        Self {
            rows,
            heads,
            kv_heads,
            scale: None,
            window: None,
            is_bidirectional: false,
            soft_cap: None,
            sinks: None,
        }
    }

    /// The factor of scores, for heads of `dim` values.
    pub(crate) fn scale(&self, dim: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (dim as f32).sqrt())
    }

    pub(crate) fn check(
        &self,
        Operands { qkv, pages, out }: Operands<'_>,
    ) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width, dtype) = operand.matrix()?;
        if tokens != self.rows.tokens() {
            return Err(operand.shape_error(format!("{} tokens, as the step", self.rows.tokens())));
        }
        pages.check(OP, self.kv_heads, dtype)?;
        let heads = self.heads;
        if heads == 0 || !heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a number that divides {heads} heads of queries");
            return Err(wrong("kv_heads", self.kv_heads, expected));
        }
        let hidden = heads.saturating_mul(pages.head_dim());
        if width < hidden {
            return Err(operand.shape_error(format!("{heads} heads of {}", pages.head_dim())));
        }
        let values = heads.saturating_mul(pages.value_dim());
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, values], dtype)?;
        if let Some(sinks) = self.sinks {
            Operand { op: OP, name: "sinks", tensor: sinks }.expect(&[heads], DType::F32)?;
        }
        if self.window == Some(0) {
            return Err(wrong("window", 0, "at least the query's own key".to_owned()));
        }
        let position = self.rows.sequences().iter().map(|sequence| sequence.position).max();
        if let Some(position) = position.filter(|&position| self.is_bidirectional && position > 0) {
            return Err(wrong("position", position, "0: whole sequences".to_owned()));
        }
        for (name, factor) in [("scale", self.scale), ("soft_cap", self.soft_cap)] {
            if let Some(value) = factor.filter(|factor| !(factor.is_finite() && *factor > 0.0)) {
                return Err(KernelError::Factor { op: OP, name, value });
            }
        }
        self.rows.check_reads(OP, pages.count(), self.window)?;
        share_no_memory(OP, out, &[("qkv", qkv), ("pages", &pages.store)])
    }

    /// `y` in float64 of one whole sequence, whose `qkv` has heads of `dim` values: what [`Self::rows`] says does not
    /// count.
    #[cfg(test)]
    pub(crate) fn reference(&self, qkv: &[f64], dim: usize) -> Vec<f64> {
        let width = (self.heads + 2 * self.kv_heads) * dim;
        let mut out = Vec::new();
        for query in 0..qkv.len() / width {
            for head in 0..self.heads {
                out.extend(self.reference_head(qkv, [query, head, dim]));
            }
        }
        out
    }

    /// As [`Self::reference`], of `query` and `keys` of `dim` values, the first `value_dim` of which are the values.
    #[cfg(test)]
    pub(crate) fn reference_latent(
        &self,
        query: &[f64],
        keys: &[f64],
        [dim, value_dim]: [usize; 2],
    ) -> Vec<f64> {
        let rows = query.chunks_exact(self.heads * dim).zip(keys.chunks_exact(dim));
        let qkv: Vec<f64> = rows.flat_map(|(query, key)| [query, key, key].concat()).collect();
        let whole = self.reference(&qkv, dim);
        whole.chunks_exact(dim).flat_map(|head| head[..value_dim].to_vec()).collect()
    }

    /// One head of one query.
    #[cfg(test)]
    fn reference_head(&self, qkv: &[f64], [query, head, dim]: [usize; 3]) -> Vec<f64> {
        let width = (self.heads + 2 * self.kv_heads) * dim;
        let kv_head = head / (self.heads / self.kv_heads);
        let part = |token: usize, head: usize| &qkv[token * width + head * dim..][..dim];
        let scale = self.scale.map_or(1.0 / (dim as f64).sqrt(), f64::from);
        let first = self.window.map_or(0, |window| (query + 1).saturating_sub(window));
        let tokens = qkv.len() / width;
        let last = match self.window {
            _ if !self.is_bidirectional => query,
            None => tokens - 1,
            Some(window) => (query + window).min(tokens) - 1,
        };
        let score = |key: usize| {
            let pairs = part(query, head).iter().zip(part(key, self.heads + kv_head));
            let score = pairs.map(|(q, k)| q * k).sum::<f64>() * scale;
            self.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = (first..=last).map(score).collect();
        let sink = self.sinks.map(|sinks| super::operand::doubles(sinks)[head]);
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().copied().chain(sink).map(|score| (score - max).exp()).sum();
        let mut sums = vec![0.0; dim];
        for (key, score) in (first..=last).zip(scores) {
            let probability = (score - max).exp() / total;
            for (sum, value) in sums.iter_mut().zip(part(key, self.heads + self.kv_heads + kv_head))
            {
                *sum += probability * value;
            }
        }
        sums
    }
}

/// A parameter that does not fit.
fn wrong(operand: &'static str, actual: usize, expected: String) -> KernelError {
    KernelError::Shape { op: OP, operand, actual: vec![actual], expected }
}
