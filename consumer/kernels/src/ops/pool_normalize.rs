//! `pool_normalize`: the last hidden state to one vector a sequence.
//!
//! - formula: mean of the sequence's token vectors, its first or last one, or each dimension's largest value; then
//!   the first `dimensions` values; then, where asked, divided by their L2 norm (at least 1e-12)
//! - shapes: `x`: `[tokens, hidden]`; `y`: `[sequences, hidden]`, zero beyond a sequence's `dimensions`
//! - dtype: `x`: f32 or bf16 (on a GPU bf16 or f16); `y`: f32
//! - memory traffic: what is pooled once, `y` twice
//! - numerics: sums in f32, token after token; an empty sequence gives zeros
//! - source: Reimers and Gurevych 2019 (Sentence-BERT); Kusupati et al. 2022 (cutting dimensions)

use candle_core::{DType, Tensor};

use super::cu_seqlens::CuSeqlens;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "pool_normalize";
/// The norm below which a vector is not scaled up: what `normalize` of `PyTorch` takes.
pub(crate) const NORM_MIN: f32 = 1e-12;

/// How a sequence's token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    Cls,
    /// The last one.
    Last,
    /// Each dimension's largest value.
    Max,
}

/// How a pooled vector is finished. Each sequence has its own: a batch may mix callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Divide by the L2 norm, after cutting.
    pub normalize: bool,
    /// Keep only the first so many values; `None` keeps all.
    pub dimensions: Option<usize>,
}

impl Default for Finish {
    fn default() -> Self {
        Self { normalize: true, dimensions: None }
    }
}

/// Pooling, cutting and L2 normalisation, a sequence at a time.
#[derive(Debug, Clone, Copy)]
pub struct PoolNormalize<'a> {
    /// The packed sequences.
    pub cu_seqlens: &'a CuSeqlens,
    /// How to pool.
    pub pooling: Pooling,
    /// One a sequence.
    pub finishes: &'a [Finish],
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    /// `[sequences, hidden]`, f32; written.
    pub(crate) out: &'a Tensor,
}

impl PoolNormalize<'_> {
    pub(crate) fn check(&self, Operands { x, out }: Operands<'_>) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, hidden, _) = operand.matrix()?;
        if tokens != self.cu_seqlens.tokens() {
            return Err(operand.shape_error(format!(
                "{} tokens, where cu_seqlens ends",
                self.cu_seqlens.tokens()
            )));
        }
        if self.finishes.len() != self.cu_seqlens.sequences() {
            return Err(KernelError::Shape {
                op: OP,
                operand: "finishes",
                actual: vec![self.finishes.len()],
                expected: format!("[{}], one a sequence", self.cu_seqlens.sequences()),
            });
        }
        for (sequence, finish) in self.finishes.iter().enumerate() {
            if let Some(dimensions) = finish.dimensions.filter(|&kept| kept == 0 || kept > hidden) {
                return Err(KernelError::Dimensions { sequence, dimensions, hidden });
            }
        }
        let shape = [self.cu_seqlens.sequences(), hidden];
        Operand { op: OP, name: "out", tensor: out }.expect(&shape, DType::F32)?;
        share_no_memory(OP, out, &[("x", x)])
    }

    /// `y` in float64, of rows of `hidden` values side by side.
    #[cfg(test)]
    pub(crate) fn reference(&self, x: &[f64], hidden: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for (range, finish) in self.cu_seqlens.ranges().zip(self.finishes) {
            let tokens = range.len();
            let rows: Vec<&[f64]> = x.chunks_exact(hidden).skip(range.start).take(tokens).collect();
            let used = match self.pooling {
                Pooling::Mean | Pooling::Max => rows.as_slice(),
                Pooling::Cls => &rows[..tokens.min(1)],
                Pooling::Last => &rows[tokens.saturating_sub(1)..],
            };
            let mut pooled = vec![0.0; hidden];
            for column in 0..finish.dimensions.unwrap_or(hidden) {
                let values = used.iter().map(|row| row[column]);
                pooled[column] = if self.pooling == Pooling::Max && tokens > 0 {
                    // Not `f64::max`, which loses NaN.
                    let larger = |a: f64, b: f64| if a.is_nan() || b <= a { a } else { b };
                    values.fold(f64::NEG_INFINITY, larger)
                } else {
                    values.sum::<f64>() / used.len().max(1) as f64
                };
            }
            let norm = pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
            let divisor = if finish.normalize { norm.max(f64::from(NORM_MIN)) } else { 1.0 };
            out.extend(pooled.iter().map(|value| value / divisor));
        }
        out
    }
}
