//! `head_linear`: a matrix product for each head of a state: head by head a weight of its own.
//!
//! - formula: `y[t, h, :out] = weight[h] * x[t, h, :in]`
//! - shapes: `x`: `[tokens, heads * (in or more)]`; `weight`: `[heads, out, in]`; `y`:
//!   `[tokens, heads * (out or more)]`. Of each head the first values are read and written; what is beyond stays
//! - dtype: f32 or bf16 (`in` even) with f32 sums
//! - memory traffic: `x` and `y` once, a head's weight once for each chunk of rows
//! - numerics: as `linear`: summed in an order that does not depend on the rows beside
//! - source: `DeepSeek`-AI 2024 (`DeepSeek`-V2, 2.1.2: the projections of keys and values, absorbed)
//!
//! The weight is packed once, as that of [`Linear`](crate::Linear): each head's outputs are whole panels.

use candle_core::{DType, Tensor};

use super::linear::PackedWeight;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

pub(crate) const OP: &str = "head_linear";

/// Linear layers of all heads of a state, without bias.
#[derive(Debug, Clone)]
pub struct HeadLinear {
    /// Panels of all heads, one head's after the other's.
    pub(crate) weight: PackedWeight,
    pub(crate) heads: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Of what goes in and what comes out.
    pub(crate) dtype: DType,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, heads * (in or more)]`
    pub(crate) x: &'a Tensor,
    /// `[tokens, heads * (out or more)]`; the first `out` values of each head are written.
    pub(crate) out: &'a Tensor,
}

impl HeadLinear {
    /// Heads, outputs and inputs of `weight`, if it can be multiplied in `dtype`.
    pub(crate) fn sizes(weight: &Tensor, dtype: DType) -> Result<[usize; 3], KernelError> {
        let operand = Operand { op: OP, name: "weight", tensor: weight };
        match *weight.dims() {
            [heads, outputs, inputs]
                if heads > 0
                    && outputs > 0
                    && inputs > 0
                    && (dtype != DType::BF16 || inputs.is_multiple_of(2)) =>
            {
                Ok([heads, outputs, inputs])
            }
            _ => Err(operand.shape_error(
                "[heads, out, in], all above zero, and in bf16 an even number of inputs".to_owned(),
            )),
        }
    }

    pub(crate) fn check(&self, Operands { x, out }: Operands<'_>) -> Result<(), KernelError> {
        let mut tokens = None;
        for (name, tensor, least) in [("x", x, self.inputs), ("out", out, self.outputs)] {
            let operand = Operand { op: OP, name, tensor };
            let (rows, width, _) = operand.matrix()?;
            if !width.is_multiple_of(self.heads) || width / self.heads < least {
                return Err(
                    operand.shape_error(format!("{} heads of at least {least} values", self.heads))
                );
            }
            operand.expect(&[*tokens.get_or_insert(rows), width], self.dtype)?;
        }
        share_no_memory(OP, out, &[("x", x)])
    }
}

/// `y` in float64, heads of exactly `in` and `out` values. `weight` as it came.
#[cfg(test)]
pub(crate) fn reference(
    x: &[f64],
    weight: &[f64],
    [heads, outputs, inputs]: [usize; 3],
) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len() / inputs * outputs);
    for (index, x) in x.chunks_exact(inputs).enumerate() {
        let weight = &weight[index % heads * outputs * inputs..][..outputs * inputs];
        for weight in weight.chunks_exact(inputs) {
            y.push(x.iter().zip(weight).map(|(x, weight)| x * weight).sum());
        }
    }
    y
}
