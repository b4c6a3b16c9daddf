//! `pool_normalize`: the last hidden state to one vector a sequence.
//!
//! | | |
//! | --- | --- |
//! | formula | mean of the sequence's token vectors, or its first one; then the first `dimensions` values; then, where asked, divided by their L2 norm (at least 1e-12) |
//! | shapes | `x`: `[tokens, hidden]`; `y`: `[sequences, hidden]`, zero beyond a sequence's `dimensions` |
//! | dtype | f32 |
//! | numerics | sums in f32, token after token; an empty sequence gives zeros |
//! | source | Reimers and Gurevych 2019 (Sentence-BERT); Kusupati et al. 2022 (cutting dimensions) |

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::math::sum_of_squares;
use crate::operand::{Operand, values};
use crate::simd::{Isa, Target, dispatched};
use crate::{CuSeqlens, KernelError};

const OP: &str = "pool_normalize";
/// The norm below which a vector is not scaled up: what `normalize` of `PyTorch` takes.
const NORM_MIN: f32 = 1e-12;

/// How a sequence's token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    Cls,
}

/// What is done to a pooled vector. Each sequence has its own: a batch may mix callers.
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
    /// Where sequences begin and end.
    pub cu_seqlens: &'a CuSeqlens,
    /// How to pool.
    pub pooling: Pooling,
    /// One a sequence.
    pub finishes: &'a [Finish],
}

impl PoolNormalize<'_> {
    /// `x`: `[tokens, hidden]`; gives `[sequences, hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, hidden) = operand.matrix()?;
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
        Ok(x.apply_op1_no_bwd(self)?)
    }
}

impl CustomOp1 for PoolNormalize<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let hidden = layout.dims()[1];
        let sequences = self.cu_seqlens.sequences();
        let mut out = vec![0.0; sequences * hidden];
        if hidden > 0 {
            let isa = Isa::best();
            out.par_chunks_mut(hidden).enumerate().for_each(|(sequence, out)| {
                let tokens = self.cu_seqlens.range(sequence);
                let x = &x[tokens.start * hidden..tokens.end * hidden];
                let finish = self.finishes[sequence];
                let kept = &mut out[..finish.dimensions.unwrap_or(hidden)];
                pool_one(isa, kept, x, hidden, self.pooling, finish.normalize);
            });
        }
        Ok((CpuStorage::F32(out), (sequences, hidden).into()))
    }
}

dispatched! {
    /// One sequence: `x` is its tokens' rows of `hidden`, `out` the values to keep.
    fn pool_one(out: &mut [f32], x: &[f32], hidden: usize, pooling: Pooling, normalize: bool) = pool;
}

#[inline(always)]
fn pool<T: Target>(out: &mut [f32], x: &[f32], hidden: usize, pooling: Pooling, normalize: bool) {
    let tokens = match pooling {
        Pooling::Mean => x.len() / hidden,
        Pooling::Cls => 1.min(x.len() / hidden),
    };
    for row in x.chunks_exact(hidden).take(tokens) {
        for (out, value) in out.iter_mut().zip(row) {
            *out += value;
        }
    }
    let mut factor = 1.0 / tokens.max(1) as f32;
    if normalize {
        let norm = sum_of_squares::<T>(out, 0.0).sqrt() * factor;
        factor /= if norm < NORM_MIN { NORM_MIN } else { norm };
    }
    for out in out {
        *out *= factor;
    }
}
