//! `weight_rows`: rows of a linear layer's weight, as numbers again.
//!
//! - formula: `out[i] = weight[outputs[i]]`
//! - shapes: `outputs`: as many as wanted; `out`: `[outputs, in]`
//! - dtype: f32 or bf16, to which the weights are rounded; not of int8 weights, which are not those of the checkpoint
//! - memory traffic: a cache line for each 2 to 8 weights
//!
//! A language model whose head is its embedding finds a token's vector in the head and keeps no second table.

use candle_core::{DType, Tensor};

use super::linear::Linear;
use super::operand::Operand;
use crate::error::KernelError;

pub(crate) const OP: &str = "weight_rows";

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// Rows of the weight, each less than the layer has outputs.
    pub(crate) outputs: &'a [u32],
    /// `[outputs, in]`; written.
    pub(crate) out: &'a Tensor,
}

impl Linear {
    /// Whether its weight is kept as it came, but for its order, and can be read again.
    pub fn keeps_weight(&self) -> bool {
        self.weight.scales.is_none()
    }

    pub(crate) fn check_rows(
        &self,
        Operands { outputs, out }: Operands<'_>,
    ) -> Result<(), KernelError> {
        if !self.keeps_weight() {
            let expected = "plain numbers or blocks";
            return Err(KernelError::DType {
                op: OP,
                operand: "weight",
                actual: DType::U8,
                expected,
            });
        }
        let rows = self.outputs();
        if let Some(&value) = outputs.iter().find(|&&output| output as usize >= rows) {
            return Err(KernelError::OutsideTable {
                op: OP,
                what: "output",
                value: value as usize,
                rows,
            });
        }
        let operand = Operand { op: OP, name: "out", tensor: out };
        let (_, _, dtype) = operand.matrix()?;
        operand.expect(&[outputs.len(), self.inputs()], dtype)
    }
}
