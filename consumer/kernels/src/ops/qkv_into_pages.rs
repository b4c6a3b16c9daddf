//! `qkv_into_pages`: queries and keys are normalised by head and turned by their positions; keys and values go into
//! pages.
//!
//! - formula: of each head `x` of queries and keys: `x = RMSNorm(x)` where the model has such norms; then as `rotary`,
//!   over the first values of the head that the table has angles for
//! - shapes: `qkv`: `[tokens, (heads + 2 kv_heads) * dim]`, a token's queries, keys and values side by side, heads
//!   inside; queries are changed in place, keys and values there are only read
//! - dtype: f32 or bf16 (heads of an even size), as the pages; norms and rotations in f32, rounded once
//! - memory traffic: `qkv` once and its queries back; keys and values once into pages
//! - numerics: as `rms_norm` and `rotary`
//! - source: Su et al. 2021 (rotations); Henry et al. 2020 (norms of queries and keys); Kwon et al. 2023 (pages)

use candle_core::{DType, Tensor};

use super::operand::Operand;
use super::pages::Pages;
use super::rms_norm::RmsNorm;
use super::rotary::Rotary;
use super::step_rows::StepRows;
use crate::error::KernelError;

pub(crate) const OP: &str = "qkv_into_pages";

/// The way of a step's queries, keys and values from the linear layer to attention.
#[derive(Debug, Clone, Copy)]
pub struct QkvIntoPages<'a> {
    /// The angles; `None` in layers without positions. Where the table is narrower than a head, only so many of a
    /// head's values turn, from the first on, and the others stay (partial rotation).
    pub rotary: Option<&'a Rotary>,
    /// `[dim]`: the norm of each head of queries.
    pub q_norm: Option<&'a RmsNorm>,
    /// `[dim]`: the norm of each head of keys.
    pub k_norm: Option<&'a RmsNorm>,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys, and of values.
    pub kv_heads: usize,
}

/// The tensors of one call, and where the rows belong.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, (heads + 2 kv_heads) * dim]`; its queries are changed in place.
    pub(crate) qkv: &'a Tensor,
    pub(crate) rows: &'a StepRows<'a>,
    /// Written.
    pub(crate) pages: &'a Pages,
}

impl QkvIntoPages<'_> {
    pub(crate) fn check(
        &self,
        Operands { qkv, rows, pages }: Operands<'_>,
    ) -> Result<(), KernelError> {
        let operand = Operand { op: OP, name: "qkv", tensor: qkv };
        let (tokens, width, dtype) = operand.matrix()?;
        if tokens != rows.tokens() {
            return Err(operand.shape_error(format!("{} tokens, as the step", rows.tokens())));
        }
        pages.check(OP, self.kv_heads, dtype)?;
        let dim = pages.head_dim();
        let expected =
            self.heads.checked_add(2 * self.kv_heads).and_then(|all| all.checked_mul(dim));
        if self.heads == 0 || Some(width) != expected {
            let [heads, kv_heads] = [self.heads, self.kv_heads];
            return Err(operand.shape_error(format!("{heads} + 2 x {kv_heads} heads of {dim}")));
        }
        for (name, norm) in [("q_norm", self.q_norm), ("k_norm", self.k_norm)] {
            if let Some(norm) = norm {
                norm.check_weight(OP, name, dim)?;
            }
        }
        let positions = match self.rotary {
            Some(rotary) => Some(check_table(rotary, dim)?),
            None => None,
        };
        rows.check_writes(OP, pages.count(), positions)
    }

    /// Queries and keys of `qkv`, heads of `dim` values, normalised and turned in float64, with the angles of the
    /// table.
    #[cfg(test)]
    pub(crate) fn reference(&self, qkv: &mut [f64], rows: &StepRows<'_>, dim: usize) {
        let width = (self.heads + 2 * self.kv_heads) * dim;
        let positions = rows
            .sequences()
            .iter()
            .flat_map(|sequence| sequence.position..sequence.position + sequence.tokens);
        for (row, position) in qkv.chunks_exact_mut(width).zip(positions) {
            let heads = row.chunks_exact_mut(dim).take(self.heads + self.kv_heads);
            for (index, head) in heads.enumerate() {
                let norm = if index < self.heads { self.q_norm } else { self.k_norm };
                if let Some(norm) = norm {
                    head.copy_from_slice(&norm.reference(head));
                }
                if let Some(rotary) = self.rotary {
                    rotary.reference_head(head, position);
                }
            }
        }
    }
}

/// How many positions a table has, if heads of `dim` values can be turned by it.
fn check_table(rotary: &Rotary, dim: usize) -> Result<usize, KernelError> {
    let table = Operand { op: OP, name: "rotary", tensor: &rotary.table };
    match *rotary.table.dims() {
        [positions, turned] if turned > 0 && turned <= dim => {
            table.expect(&[positions, turned], DType::F32)?;
            Ok(positions)
        }
        _ => Err(table.shape_error(format!("angles of at most {dim} values"))),
    }
}
