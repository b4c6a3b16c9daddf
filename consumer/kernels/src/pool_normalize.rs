//! `pool_normalize`: the last hidden state to one vector a sequence.
//!
//! | | |
//! | --- | --- |
//! | formula | mean of the sequence's token vectors, its first or last one, or each dimension's largest value; then the first `dimensions` values; then, where asked, divided by their L2 norm (at least 1e-12) |
//! | shapes | `x`: `[tokens, hidden]`; `y`: `[sequences, hidden]`, zero beyond a sequence's `dimensions` |
//! | dtype | `x`: f32 or bf16; `y`: f32 |
//! | memory traffic | what is pooled once, `y` twice |
//! | numerics | sums in f32, token after token; an empty sequence gives zeros |
//! | source | Reimers and Gurevych 2019 (Sentence-BERT); Kusupati et al. 2022 (cutting dimensions) |
#![allow(unsafe_code)]

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};

use crate::block::Columns;
use crate::element::{Element, by_dtype};
use crate::math::sum_of_squares;
use crate::operand::{Operand, dtype, values, values_mut};
use crate::parallel::for_each;
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
    /// The last one.
    Last,
    /// Each dimension's largest value.
    Max,
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
    /// `x`: `[tokens, hidden]`; gives `[sequences, hidden]` in f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (_, hidden, _) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let shape = (self.cu_seqlens.sequences(), hidden);
        let out = Tensor::zeros(shape, DType::F32, x.device())?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, hidden]`; writes `out`: `[sequences, hidden]`, f32.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
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
        Ok(out.inplace_op2(x, self)?)
    }
}

impl InplaceOp2 for PoolNormalize<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<()> {
        let hidden = x_layout.dims()[1];
        if hidden == 0 {
            return Ok(());
        }
        let (isa, out) = (Isa::best(), Columns::new(values_mut(out, out_layout)?, hidden));
        by_dtype!(dtype(x), |E| {
            let x = values::<E>(x, x_layout)?;
            for_each(self.cu_seqlens.sequences(), |sequence| {
                let tokens = self.cu_seqlens.range(sequence);
                let x = &x[tokens.start * hidden..tokens.end * hidden];
                // SAFETY: each sequence has its own row.
                let row = unsafe { out.rows(sequence..sequence + 1) };
                pool_one(isa, row, x, self.pooling, self.finishes[sequence]);
            });
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut candle_core::CudaStorage,
        out_layout: &Layout,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (out, x) = ((&*out, out_layout), (x, x_layout));
        crate::cuda::pool_normalize(self.cu_seqlens, self.pooling, self.finishes, out, x)
    }
}

dispatched! {
    /// One sequence: `x` is its tokens' rows, as long as `out`.
    fn pool_one<E>(out: &mut [f32], x: &[E], pooling: Pooling, finish: Finish) = pool;
}

#[inline(always)]
fn pool<T: Target, E: Element>(out: &mut [f32], x: &[E], pooling: Pooling, finish: Finish) {
    let hidden = out.len();
    let (out, cut) = out.split_at_mut(finish.dimensions.unwrap_or(hidden));
    cut.fill(0.0);
    out.fill(0.0);
    let tokens = x.len() / hidden;
    let pooled = match pooling {
        Pooling::Mean | Pooling::Max => 0..tokens,
        Pooling::Cls => 0..1.min(tokens),
        Pooling::Last => tokens.saturating_sub(1)..tokens,
    };
    for (index, row) in x.chunks_exact(hidden).enumerate().take(pooled.end).skip(pooled.start) {
        if pooling == Pooling::Max && index > 0 {
            for (out, value) in out.iter_mut().zip(row) {
                let value = value.widen();
                // A NaN wins, and stays.
                *out = if *out < value || value.is_nan() { value } else { *out };
            }
        } else {
            for (out, value) in out.iter_mut().zip(row) {
                *out += value.widen();
            }
        }
    }
    let mut factor = match pooling {
        Pooling::Mean => 1.0 / tokens.max(1) as f32,
        Pooling::Cls | Pooling::Last | Pooling::Max => 1.0,
    };
    if finish.normalize {
        let norm = sum_of_squares::<T>(out, 0.0).sqrt() * factor;
        factor /= if norm < NORM_MIN { NORM_MIN } else { norm };
    }
    for out in out {
        *out *= factor;
    }
}
