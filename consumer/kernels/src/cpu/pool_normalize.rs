//! `pool_normalize` on the processor.
#![allow(unsafe_code)]

use candle_core::Result;

use super::block::Columns;
use super::element::{Element, by_dtype};
use super::math::sum_of_squares;
use super::parallel::for_each;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::pool_normalize::{Finish, NORM_MIN, Operands, PoolNormalize, Pooling};

pub(super) fn pool_normalize(
    op: &PoolNormalize<'_>,
    Operands { x, out }: Operands<'_>,
) -> Result<()> {
    let dtype = x.dtype();
    let hidden = x.dims()[1];
    if hidden == 0 {
        return Ok(());
    }
    let isa = Isa::best();
    let x = borrow(x);
    write(out, |out| {
        let out = Columns::new(out.values()?, hidden);
        by_dtype!(dtype, |E| {
            let x = x.values::<E>()?;
            for_each(op.cu_seqlens.sequences(), |sequence| {
                let tokens = op.cu_seqlens.range(sequence);
                let x = &x[tokens.start * hidden..tokens.end * hidden];
                // SAFETY: each sequence has its own row.
                let row = unsafe { out.rows(sequence..sequence + 1) };
                pool_one(isa, row, x, op.pooling, op.finishes[sequence]);
            });
        });
        Ok(())
    })
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
