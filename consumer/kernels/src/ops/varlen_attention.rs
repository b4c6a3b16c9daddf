//! `varlen_attention`: attention within each packed sequence, in one pass over tiles of keys.
//!
//! - formula: per sequence and head: `y = softmax(q * transpose(k) * scale + bias[key - query]) * v` over the keys
//!   that the mask lets a query see
//! - shapes: `qkv`: `[tokens, 3 * hidden]`, a token's queries, keys and values side by side, heads inside;
//!   `distance_bias`: `[heads, 2 n - 1]`; `y`: `[tokens, hidden]`
//! - dtype: f32, or bf16 with scores, sums and exponentials in f32 (heads of an even size); on a GPU bf16 or f16;
//!   biases are f32
//! - memory traffic: `qkv` once, `y` once; on the processor a head's packed keys and values stay in L2 cache
//! - numerics: the running maximum is subtracted before `exp2`, whose relative error is 3e-7, or 1.1e-4 for
//!   probabilities that are rounded to bf16
//! - source: Vaswani et al. 2017; tiles with a running maximum after Milakov and Gimelshein 2018 and Dao et al.
//!   2022; bias by distance: Raffel et al. 2019, Press et al. 2021

use candle_core::{DType, Tensor};

use super::cu_seqlens::CuSeqlens;
use super::mask::Mask;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "varlen_attention";

/// Attention of all heads over packed sequences.
#[derive(Debug, Clone, Copy)]
pub struct VarlenAttention<'a> {
    /// The packed sequences.
    pub cu_seqlens: &'a CuSeqlens,
    /// Heads; they divide the hidden size.
    pub heads: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// For each sequence how many of its tokens are seen as keys, from the first on; `None` where all are. Queries
    /// after these see them too. On a GPU `None` alone.
    pub seen: Option<&'a [usize]>,
    /// The factor of scores; `None` is one over the root of a head's size.
    pub scale: Option<f32>,
    /// `[heads, 2 n - 1]`, `n` at least the longest sequence: added to a head's scaled scores by how far the key is
    /// from the query, `n - 1` being where both are one token.
    pub distance_bias: Option<&'a Tensor>,
    /// `[3 * hidden]`, f32: the bias of the linear layer whose result is `qkv`, where that left it to be added here.
    /// That of keys changes nothing: it adds one number to all scores of a query.
    pub bias: Option<&'a Tensor>,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, 3 * hidden]`
    pub(crate) qkv: &'a Tensor,
    /// `[tokens, hidden]`; written.
    pub(crate) out: &'a Tensor,
}

impl<'a> VarlenAttention<'a> {
    /// Every query sees every key of its sequence, scores are scaled as usual, and nothing is added.
    pub fn new(cu_seqlens: &'a CuSeqlens, heads: usize) -> Self {
        Self {
            cu_seqlens,
            heads,
            mask: Mask::default(),
            seen: None,
            scale: None,
            distance_bias: None,
            bias: None,
        }
    }

    /// The factor of scores, for heads of `dim` values.
    pub(crate) fn scale(&self, dim: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (dim as f32).sqrt())
    }

    pub(crate) fn check(&self, Operands { qkv, out }: Operands<'_>) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width, dtype) = operand.matrix()?;
        if tokens != self.cu_seqlens.tokens() {
            return Err(operand.shape_error(format!(
                "{} tokens, where cu_seqlens ends",
                self.cu_seqlens.tokens()
            )));
        }
        let heads = self.heads;
        if heads == 0 || !width.is_multiple_of(3 * heads) {
            return Err(operand.shape_error(format!("a width that 3 x {heads} heads divide")));
        }
        if dtype == DType::BF16 && !(width / 3 / heads).is_multiple_of(2) {
            return Err(operand.shape_error(format!("{heads} heads of an even size in bf16")));
        }
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, width / 3], dtype)?;
        self.check_seen()?;
        if let Some(bias) = self.distance_bias {
            self.check_distances(Operand { op: OP, name: "distance_bias", tensor: bias })?;
        }
        if let Some(bias) = self.bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[width], DType::F32)?;
        }
        share_no_memory(OP, out, &[("qkv", qkv)])
    }

    /// Every query sees a key: the one that sees least is the last, whose window begins last.
    fn check_seen(&self) -> Result<(), KernelError> {
        let Some(seen) = self.seen else { return Ok(()) };
        let wrong = |expected: String| KernelError::Shape {
            op: OP,
            operand: "seen",
            actual: seen.to_vec(),
            expected,
        };
        if seen.len() != self.cu_seqlens.sequences() {
            return Err(wrong(format!("[{}], one a sequence", self.cu_seqlens.sequences())));
        }
        for (range, &seen) in self.cu_seqlens.ranges().zip(seen) {
            let tokens = range.len();
            let begin = tokens.checked_sub(1).map_or(0, |last| self.mask.keys(last, tokens).start);
            if seen > tokens || (tokens > 0 && seen <= begin) {
                return Err(wrong(format!("{} to {tokens} of {tokens} tokens", begin + 1)));
            }
        }
        Ok(())
    }

    fn check_distances(&self, bias: Operand<'_>) -> Result<(), KernelError> {
        let longest = self.cu_seqlens.ranges().map(|range| range.len()).max().unwrap_or_default();
        let (rows, width) = match *bias.tensor.dims() {
            [rows, width] => (rows, width),
            _ => (0, 0),
        };
        if rows != self.heads || width.is_multiple_of(2) || width < 2 * longest.max(1) - 1 {
            return Err(bias.shape_error(format!(
                "[{}, 2 n - 1] with n at least {longest}, the longest sequence",
                self.heads
            )));
        }
        bias.expect(&[rows, width], DType::F32)
    }

    /// `y` in float64, of `qkv` with heads of `dim` values.
    #[cfg(test)]
    pub(crate) fn reference(&self, qkv: &[f64], dim: usize) -> Vec<f64> {
        let hidden = self.heads * dim;
        let bias = self.bias.map_or(vec![0.0; 3 * hidden], super::operand::doubles);
        let qkv: Vec<f64> = qkv.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
        let distances = self.distance_bias.map(super::operand::doubles);
        let mut out = Vec::new();
        for (index, range) in self.cu_seqlens.ranges().enumerate() {
            let seen = self.seen.map_or(range.len(), |seen| seen[index]);
            let sequence = &qkv[range.start * 3 * hidden..range.end * 3 * hidden];
            for query in 0..range.len() {
                for head in 0..self.heads {
                    let distances = distances.as_ref().map(|distances| {
                        let width = distances.len() / self.heads;
                        &distances[head * width..(head + 1) * width]
                    });
                    let at = [query, head, dim, seen];
                    out.extend(self.reference_head(sequence, distances, at));
                }
            }
        }
        out
    }

    /// One head of one query of one sequence.
    #[cfg(test)]
    fn reference_head(
        &self,
        sequence: &[f64],
        distances: Option<&[f64]>,
        [query, head, dim, seen]: [usize; 4],
    ) -> Vec<f64> {
        let hidden = self.heads * dim;
        let scale = self.scale.map_or(1.0 / (dim as f64).sqrt(), f64::from);
        let part = |token: usize, part: usize| {
            &sequence[token * 3 * hidden + part * hidden + head * dim..][..dim]
        };
        let score = |key: usize| -> f64 {
            if key >= seen || !self.mask.sees(query, key) {
                return 0.0;
            }
            let dot: f64 = part(query, 0).iter().zip(part(key, 1)).map(|(q, k)| q * k).sum();
            let bias = distances.map_or(0.0, |bias| bias[bias.len() / 2 + key - query]);
            (dot * scale + bias).exp()
        };
        let scores: Vec<f64> = (0..sequence.len() / (3 * hidden)).map(score).collect();
        let total: f64 = scores.iter().sum();
        let mut sums = vec![0.0; dim];
        for (key, score) in scores.iter().enumerate() {
            for (sum, value) in sums.iter_mut().zip(part(key, 2)) {
                *sum += score / total * value;
            }
        }
        sums
    }
}
