//! `latent_into_pages`: what a token is remembered by in latent attention goes into a page, and queries are turned.
//!
//! - formula: a token's key is `[RMSNorm(c), R(k)]`, with `c` the first values of `latent`, `k` the others, and `R` the
//!   rotation by its position, as `rotary`; of each head's query the last values become `R` of them, behind those that
//!   [`HeadLinear`](crate::HeadLinear) makes of the first ones. Where pairs that turn together come side by side, they
//!   leave one half after the other
//! - shapes: `latent`: `[tokens, rank + turned]`; `q`: `[tokens, heads * (plain + turned)]`; `query`:
//!   `[tokens, heads * (rank + turned)]`, of which the last `turned` values of each head are written; pages: latent,
//!   keys of `rank + turned` values, of which `rank` are the values
//! - dtype: f32 or bf16, as the pages; norm and rotation in f32, rounded once
//! - memory traffic: `latent` once, and once into pages; of `q` and `query` what is turned
//! - numerics: as `rms_norm` and `rotary`
//! - source: `DeepSeek`-AI 2024 (`DeepSeek`-V2: multi-head latent attention); Kwon et al. 2023 (pages)

use candle_core::{DType, Tensor};

use super::operand::{Operand, share_no_memory};
use super::pages::Pages;
use super::rms_norm::RmsNorm;
use super::rotary::Rotary;
use super::step_rows::StepRows;
use crate::error::KernelError;

pub(crate) const OP: &str = "latent_into_pages";

/// The way of a step's latent states and queries from the linear layers to attention.
#[derive(Debug, Clone, Copy)]
pub struct LatentIntoPages<'a> {
    /// The angles of all `turned` values of a key; `None` in layers without positions.
    pub rotary: Option<&'a Rotary>,
    /// Whether values that turn together come side by side, rather than half of the turned values apart.
    pub is_interleaved: bool,
    /// `[rank]`: the norm of what keys and values are made of.
    pub norm: &'a RmsNorm,
    /// Heads of queries.
    pub heads: usize,
}

/// The tensors of one call, and where the rows belong.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, rank + turned]`
    pub(crate) latent: &'a Tensor,
    /// `[tokens, heads * (plain + turned)]`
    pub(crate) q: &'a Tensor,
    pub(crate) rows: &'a StepRows<'a>,
    /// `[tokens, heads * (rank + turned)]`; the last `turned` values of each head are written.
    pub(crate) query: &'a Tensor,
    /// Written.
    pub(crate) pages: &'a Pages,
}

impl LatentIntoPages<'_> {
    pub(crate) fn check(&self, operands: Operands<'_>) -> Result<(), KernelError> {
        let Operands { latent, q, rows, query, pages } = operands;
        let operand = |name, tensor| Operand { op: OP, name, tensor };
        let (_, _, dtype) = operand("latent", latent).matrix()?;
        pages.check(OP, 1, dtype)?;
        let [rank, width] = [pages.value_dim(), pages.head_dim()];
        let turned = width - rank;
        if !pages.is_latent() || !turned.is_multiple_of(2) {
            return Err(KernelError::Shape {
                op: OP,
                operand: "pages",
                actual: vec![pages.count(), width, rank],
                expected: "latent pages, an even number of whose keys' values turn".to_owned(),
            });
        }
        let tokens = rows.tokens();
        operand("latent", latent).expect(&[tokens, width], dtype)?;
        self.norm.check_weight(OP, "norm", rank)?;
        let (_, q_width, _) = operand("q", q).matrix()?;
        let fits =
            self.heads > 0 && q_width.is_multiple_of(self.heads) && q_width / self.heads >= turned;
        if !fits {
            let expected = format!("{} heads of at least {turned}", self.heads);
            return Err(operand("q", q).shape_error(expected));
        }
        operand("q", q).expect(&[tokens, q_width], dtype)?;
        operand("query", query).expect(&[tokens, self.heads.saturating_mul(width)], dtype)?;
        let positions = self.rotary.map(|rotary| rotary.table.dims()[0]);
        if let (Some(rotary), Some(positions)) = (self.rotary, positions) {
            operand("rotary", &rotary.table).expect(&[positions, turned], DType::F32)?;
        }
        rows.check_writes(OP, pages.count(), positions)?;
        share_no_memory(OP, query, &[("q", q), ("latent", latent), ("pages", &pages.store)])?;
        share_no_memory(OP, &pages.store, &[("latent", latent), ("q", q)])
    }

    /// Keys in float64 of a whole sequence's `latent`, and the turned values of its `q`, token by token and head by
    /// head.
    #[cfg(test)]
    pub(crate) fn reference(
        &self,
        latent: &[f64],
        q: &[f64],
        [rank, turned]: [usize; 2],
    ) -> [Vec<f64>; 2] {
        let [mut keys, mut queries] = [Vec::new(), Vec::new()];
        let tokens = latent.len() / (rank + turned);
        let head_width = q.len() / tokens.max(1) / self.heads;
        for (position, row) in latent.chunks_exact(rank + turned).enumerate() {
            keys.extend(self.norm.reference(&row[..rank]));
            keys.extend(self.reference_turned(&row[rank..], position));
        }
        for (index, head) in q.chunks_exact(head_width).enumerate() {
            queries.extend(self.reference_turned(&head[head_width - turned..], index / self.heads));
        }
        [keys, queries]
    }

    /// Values that turn, turned: those that turn together half of them apart.
    #[cfg(test)]
    fn reference_turned(&self, values: &[f64], position: usize) -> Vec<f64> {
        let every_second = |first| values.iter().skip(first).step_by(2).copied();
        let mut halves = if self.is_interleaved {
            every_second(0).chain(every_second(1)).collect()
        } else {
            values.to_vec()
        };
        if let Some(rotary) = self.rotary {
            rotary.reference_head(&mut halves, position);
        }
        halves
    }
}
