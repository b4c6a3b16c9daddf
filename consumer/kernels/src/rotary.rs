//! `rotary`: positions as rotations of queries and keys, in place.
//!
//! | | |
//! | --- | --- |
//! | formula | for `i` below half of a head: `(a, b) = (x[i], x[i + dim / 2])` become `(a cos t - b sin t, b cos t + a sin t)` with `t = position / base^(2 i / dim)` |
//! | shapes | `qkv`: `[tokens, 3 * hidden]`, a token's queries, keys and values side by side, heads inside |
//! | dtype | f32 or bf16, rotated in f32 |
//! | memory traffic | queries and keys once each way; the tables of sines and cosines stay in a cache |
//! | numerics | angles are taken in f64 when the tables are made |
//! | source | Su et al. 2021, in the layout of GPT-NeoX |

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use crate::element::{Element, by_dtype};
use crate::layer_norm::each_rows;
use crate::operand::{Operand, borrow, dtype, values_mut};
use crate::simd::{Isa, Target, dispatched};
use crate::{CuSeqlens, KernelError};

const OP: &str = "rotary";

/// The angles of every position.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[positions, dim]`: a position's cosines, then its sines.
    table: Tensor,
}

impl Rotary {
    /// For heads of `head_dim` values and sequences of up to `positions` tokens.
    pub fn new(head_dim: usize, base: f64, positions: usize) -> Result<Self, KernelError> {
        let half = head_dim / 2;
        let mut table = Vec::with_capacity(positions * 2 * half);
        for position in 0..positions {
            let angle =
                |index: usize| position as f64 / base.powf(2.0 * index as f64 / head_dim as f64);
            table.extend((0..half).map(|index| angle(index).cos() as f32));
            table.extend((0..half).map(|index| angle(index).sin() as f32));
        }
        let table = Tensor::from_vec(table, (positions, 2 * half), &Device::Cpu)?;
        Ok(Self { table })
    }

    #[cfg(test)]
    pub(crate) fn table(&self) -> &Tensor {
        &self.table
    }

    /// The same with its angles on another device.
    pub fn on(&self, device: &Device) -> Result<Self, KernelError> {
        Ok(Self { table: self.table.to_device(device)? })
    }

    /// Rotates the queries and keys of `qkv`, `[tokens, 3 * hidden]`, each by its place in its sequence.
    pub fn apply(
        &self,
        qkv: &Tensor,
        cu_seqlens: &CuSeqlens,
        heads: usize,
    ) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width, _) = operand.matrix()?;
        if tokens != cu_seqlens.tokens() {
            return Err(operand
                .shape_error(format!("{} tokens, where cu_seqlens ends", cu_seqlens.tokens())));
        }
        let (positions, dim) = (self.table.dims()[0], self.table.dims()[1]);
        if dim == 0 || width != 3 * heads * dim {
            return Err(operand.shape_error(format!("3 x {heads} heads of {dim}")));
        }
        let longest = cu_seqlens.ranges().map(|range| range.len()).max().unwrap_or_default();
        if longest > positions {
            let (what, value) = ("position", longest - 1);
            return Err(KernelError::OutsideTable { op: OP, what, value, rows: positions });
        }
        Operand { op: OP, name: "table", tensor: &self.table }
            .expect(&[positions, dim], DType::F32)?;
        Ok(qkv.inplace_op1(&Rotation { table: &self.table, cu_seqlens, heads })?)
    }
}

/// The operation, its operands checked.
struct Rotation<'a> {
    table: &'a Tensor,
    cu_seqlens: &'a CuSeqlens,
    heads: usize,
}

impl InplaceOp1 for Rotation<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, qkv: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let table = borrow(self.table);
        let (table, dim) = (table.values::<f32>()?, self.table.dims()[1]);
        let (isa, starts) = (Isa::best(), self.cu_seqlens.as_slice());
        by_dtype!(dtype(qkv), |E| {
            let width = layout.dims()[1];
            each_rows(values_mut::<E>(qkv, layout)?, width, |rows, qkv| {
                let mut sequence = starts.partition_point(|&start| start <= rows.start) - 1;
                for (token, qkv) in rows.zip(qkv.chunks_exact_mut(width)) {
                    while starts[sequence + 1] <= token {
                        sequence += 1;
                    }
                    let angles = &table[(token - starts[sequence]) * dim..][..dim];
                    // Queries and keys: the first two thirds.
                    rotate_heads(isa, &mut qkv[..2 * self.heads * dim], angles);
                }
            });
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &mut candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        crate::cuda::rotary(self.table, self.cu_seqlens, self.heads, (qkv, layout))
    }
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
            let (x, y) = (a.widen(), b.widen());
            *a = E::narrow(T::mul_add(x, *cosine, -(y * sine)));
            *b = E::narrow(T::mul_add(y, *cosine, x * sine));
        }
    }
}
