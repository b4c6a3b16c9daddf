//! `rotary` on the processor.

use candle_core::Result;

use super::element::{Element, by_dtype};
use super::rows::each_rows;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::rotary::{Operands, Rotary};

pub(super) fn rotary(op: &Rotary, Operands { qkv, cu_seqlens, heads }: Operands<'_>) -> Result<()> {
    let table = borrow(&op.table);
    let table = table.values::<f32>()?;
    let dim = op.table.dims()[1];
    let isa = Isa::best();
    let starts = cu_seqlens.as_slice();
    let width = qkv.dims()[1];
    write(qkv, |qkv| {
        by_dtype!(qkv.dtype(), |E| {
            each_rows(qkv.values::<E>()?, width, |rows, qkv| {
                let mut sequence = starts.partition_point(|&start| start <= rows.start) - 1;
                for (token, qkv) in rows.zip(qkv.chunks_exact_mut(width)) {
                    while starts[sequence + 1] <= token {
                        sequence += 1;
                    }
                    let angles = &table[(token - starts[sequence]) * dim..][..dim];
                    // Queries and keys: the first two thirds.
                    rotate_heads(isa, &mut qkv[..2 * heads * dim], angles);
                }
            });
        });
        Ok(())
    })
}

dispatched! {
    /// All heads of one token.
    fn rotate_heads<E>(heads: &mut [E], angles: &[f32]) = rotate;
}

#[inline(always)]
fn rotate<T: Target, E: Element>(heads: &mut [E], angles: &[f32]) {
    let half = angles.len() / 2;
    let (cosines, sines) = angles.split_at(half);
    for head in heads.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
            let x = a.widen();
            let y = b.widen();
            *a = E::narrow(T::mul_add(x, *cosine, -(y * sine)));
            *b = E::narrow(T::mul_add(y, *cosine, x * sine));
        }
    }
}

/// Turns the first values of a row that are as many as its angles: cosines, then sines.
#[inline(always)]
pub(super) fn turn<T: Target>(row: &mut [f32], angles: &[f32]) {
    let (cosines, sines) = angles.split_at(angles.len() / 2);
    let (first, second) = row[..2 * sines.len()].split_at_mut(sines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        let [x, y] = [*a, *b];
        *a = T::mul_add(x, *cosine, -(y * sine));
        *b = T::mul_add(y, *cosine, x * sine);
    }
}
