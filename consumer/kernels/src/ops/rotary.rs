//! `rotary`: positions as rotations of queries and keys, in place.
//!
//! - formula: for `i` below half of a head: `(a, b) = (x[i], x[i + dim / 2])` become `(a cos t - b sin t, b cos t +
//!   a sin t)` with `t = position / base^(2 i / dim)`
//! - shapes: `qkv`: `[tokens, 3 * hidden]`, a token's queries, keys and values side by side, heads inside
//! - dtype: f32 or bf16 (on a GPU bf16 or f16), rotated in f32
//! - memory traffic: queries and keys once each way; the tables of sines and cosines stay in a cache
//! - numerics: angles are taken in f64 when the tables are made
//! - source: Su et al. 2021, in the layout of GPT-NeoX

use candle_core::{DType, Device, Tensor};

use super::cu_seqlens::CuSeqlens;
use super::operand::Operand;
use crate::error::KernelError;

const OP: &str = "rotary";

/// The angles of every position.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[positions, dim]`: a position's cosines, then its sines.
    pub(crate) table: Tensor,
}

/// The tensor of one call, and how it is divided.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, 3 * heads * dim]`; rotated in place.
    pub(crate) qkv: &'a Tensor,
    /// The packed sequences; positions count from the start of each.
    pub(crate) cu_seqlens: &'a CuSeqlens,
    pub(crate) heads: usize,
}

impl Rotary {
    /// For heads of `head_dim` values and sequences of up to `positions` tokens.
    pub fn new(head_dim: usize, base: f64, positions: usize) -> Result<Self, KernelError> {
        Self::of_frequencies(&frequencies(head_dim, base), positions)
    }

    /// With frequencies of the model's own, one for each pair of a head's values: `t = position * frequency`.
    pub fn of_frequencies(frequencies: &[f64], positions: usize) -> Result<Self, KernelError> {
        Self::of_scaled_frequencies(frequencies, 1.0, positions)
    }

    /// As [`Self::of_frequencies`], and what is turned is stretched by `amplitude` too, as models do that were made
    /// for longer texts afterwards (`YaRN`, `LongRoPE`).
    pub fn of_scaled_frequencies(
        frequencies: &[f64],
        amplitude: f64,
        positions: usize,
    ) -> Result<Self, KernelError> {
        let half = frequencies.len();
        let mut table = Vec::with_capacity(positions * 2 * half);
        for position in 0..positions {
            let angles = || frequencies.iter().map(|frequency| position as f64 * frequency);
            table.extend(angles().map(|angle| (angle.cos() * amplitude) as f32));
            table.extend(angles().map(|angle| (angle.sin() * amplitude) as f32));
        }
        let table = Tensor::from_vec(table, (positions, 2 * half), &Device::Cpu)?;
        Ok(Self { table })
    }

    /// A copy with its angles on another device.
    pub fn on(&self, device: &Device) -> Result<Self, KernelError> {
        Ok(Self { table: self.table.to_device(device)? })
    }

    /// Turns the first values of a head at `position` in float64, with the angles of the table.
    #[cfg(test)]
    pub(crate) fn reference_head(&self, head: &mut [f64], position: usize) {
        let turned = self.table.dims()[1];
        let row = self.table.get(position).unwrap_or_else(|error| panic!("{error}"));
        let row = super::operand::doubles(&row);
        let (cosines, sines) = row.split_at(turned / 2);
        for i in 0..turned / 2 {
            let [a, b] = [head[i], head[turned / 2 + i]];
            head[i] = a * cosines[i] - b * sines[i];
            head[turned / 2 + i] = b * cosines[i] + a * sines[i];
        }
    }

    pub(crate) fn check(
        &self,
        Operands { qkv, cu_seqlens, heads }: Operands<'_>,
    ) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width, _) = operand.matrix()?;
        if tokens != cu_seqlens.tokens() {
            return Err(operand
                .shape_error(format!("{} tokens, where cu_seqlens ends", cu_seqlens.tokens())));
        }
        let [positions, dim] = [self.table.dims()[0], self.table.dims()[1]];
        if dim == 0 || width != 3 * heads * dim {
            return Err(operand.shape_error(format!("3 x {heads} heads of {dim}")));
        }
        let longest = cu_seqlens.ranges().map(|range| range.len()).max().unwrap_or_default();
        if longest > positions {
            return Err(KernelError::OutsideTable {
                op: OP,
                what: "position",
                value: longest - 1,
                rows: positions,
            });
        }
        Operand { op: OP, name: "table", tensor: &self.table }.expect(&[positions, dim], DType::F32)
    }
}

fn frequencies(head_dim: usize, base: f64) -> Vec<f64> {
    (0..head_dim / 2).map(|index| base.powf(-2.0 * index as f64 / head_dim as f64)).collect()
}

/// Rotates `qkv` in float64, for heads of `dim` values.
#[cfg(test)]
pub(crate) fn reference(
    qkv: &mut [f64],
    cu_seqlens: &CuSeqlens,
    heads: usize,
    dim: usize,
    base: f64,
) {
    let half = dim / 2;
    let frequencies = frequencies(dim, base);
    let positions = cu_seqlens.ranges().flat_map(|range| 0..range.len());
    for (row, position) in qkv.chunks_exact_mut(3 * heads * dim).zip(positions) {
        for head in row[..2 * heads * dim].chunks_exact_mut(dim) {
            for i in 0..half {
                let (sine, cosine) = (position as f64 * frequencies[i]).sin_cos();
                let [a, b] = [head[i], head[half + i]];
                head[i] = a * cosine - b * sine;
                head[half + i] = b * cosine + a * sine;
            }
        }
    }
}
