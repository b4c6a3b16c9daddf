//! The public calls of latent attention's operations, as `decoder` has those of decoders'.

use candle_core::{DType, Tensor};

use super::decoder::backend_of;
use crate::cpu::backend::Cpu;
use crate::cpu::gemm::PANEL;
use crate::error::KernelError;
use crate::ops::backend::Backend;
use crate::ops::head_linear::{self, HeadLinear};
use crate::ops::latent_into_pages::{self, LatentIntoPages};
use crate::ops::pages::Pages;
use crate::ops::step_rows::StepRows;

impl LatentIntoPages<'_> {
    /// `latent`: `[tokens, rank + turned]`, `q`: `[tokens, heads * (plain + turned)]`. Writes keys to `pages`, and the
    /// last `turned` values of each head of `query`: `[tokens, heads * (rank + turned)]`.
    pub fn apply(
        &self,
        latent: &Tensor,
        q: &Tensor,
        rows: &StepRows<'_>,
        query: &Tensor,
        pages: &Pages,
    ) -> Result<(), KernelError> {
        let operands = latent_into_pages::Operands { latent, q, rows, query, pages };
        self.check(operands)?;
        let backend = backend_of(latent_into_pages::OP, latent.device())?;
        Ok(backend.latent_into_pages(self, operands)?)
    }
}

impl HeadLinear {
    /// Packs `weight` `[heads, out, in]`, of any floating-point type, to compute in `dtype` on the processor.
    pub fn new(weight: &Tensor, dtype: DType) -> Result<Self, KernelError> {
        let [heads, outputs, inputs] = Self::sizes(weight, dtype)?;
        // Whole panels, so that each head's begin where one begins.
        let filled = outputs.next_multiple_of(PANEL);
        let whole = weight.to_dtype(dtype)?.pad_with_zeros(1, 0, filled - outputs)?;
        let weight = Cpu.pack(&whole.reshape((heads * filled, inputs))?)?;
        Ok(Self { weight, heads, inputs, outputs, dtype })
    }

    /// `x`: `[tokens, heads * (in or more)]`; writes the first `out` values of each head of `out`.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = head_linear::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(head_linear::OP, x.device())?.head_linear(self, operands)?)
    }
}
