//! `embed_layer_norm`: token ids to the first hidden state.
//!
//! - formula: `y[t] = LayerNorm(words[id[t]] + positions[p[t]] + types[type[t]])`, `p[t]` counting from
//!   `first_position` in each sequence
//! - shapes: `words`: `[vocabulary, hidden]`; `positions`: `[positions, hidden]`; `types`: `[types, hidden]`; `y`:
//!   `[tokens, hidden]`
//! - dtype: f32 or bf16 (on a GPU bf16 or f16) for tables and `y`, sums in f32; ids are u32 on the host
//! - memory traffic: a row of each table and one of `y`, a token
//! - numerics: as `layer_norm`
//! - source: Devlin et al. 2018 (BERT); Liu et al. 2019 (`RoBERTa`, whose positions begin later)

use candle_core::Tensor;

use super::cu_seqlens::CuSeqlens;
use super::layer_norm::LayerNorm;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

const OP: &str = "embed_layer_norm";

/// Word, position and type rows, summed and normalised.
#[derive(Debug, Clone, Copy)]
pub struct EmbedLayerNorm<'a> {
    /// One id a token.
    pub token_ids: &'a [u32],
    /// One type id a token; `None` is type 0 everywhere.
    pub type_ids: Option<&'a [u32]>,
    /// The packed sequences; positions count from the start of each.
    pub cu_seqlens: &'a CuSeqlens,
    /// The position of a sequence's first token.
    pub first_position: usize,
    /// The normalisation.
    pub norm: &'a LayerNorm,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[vocabulary, hidden]`
    pub(crate) words: &'a Tensor,
    /// `[positions, hidden]`
    pub(crate) positions: Option<&'a Tensor>,
    /// `[types, hidden]`
    pub(crate) types: Option<&'a Tensor>,
    /// `[tokens, hidden]`; written.
    pub(crate) out: &'a Tensor,
}

impl EmbedLayerNorm<'_> {
    pub(crate) fn check(
        &self,
        Operands { words, positions, types, out }: Operands<'_>,
    ) -> Result<(), KernelError> {
        let (vocabulary, hidden, dtype) =
            Operand { op: OP, name: "words", tensor: words }.matrix()?;
        self.norm.check_parameters(OP, hidden)?;
        for ids in [Some(self.token_ids), self.type_ids].into_iter().flatten() {
            if ids.len() != self.cu_seqlens.tokens() {
                return Err(KernelError::Shape {
                    op: OP,
                    operand: "ids",
                    actual: vec![ids.len()],
                    expected: format!("[{}], where cu_seqlens ends", self.cu_seqlens.tokens()),
                });
            }
        }
        inside("token id", largest(self.token_ids), vocabulary)?;
        if let Some(types) = types {
            let rows = table_rows("types", types, words)?;
            inside("type id", self.type_ids.map_or(Some(0), largest), rows)?;
        }
        if let Some(positions) = positions {
            let longest = self.cu_seqlens.ranges().map(|range| range.len()).max();
            let last = longest.and_then(|len| len.checked_sub(1));
            let rows = table_rows("positions", positions, words)?;
            inside("position", last.map(|last| last.saturating_add(self.first_position)), rows)?;
        }
        let tokens = self.token_ids.len();
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, hidden], dtype)?;
        share_no_memory(OP, out, &[("words", words)])
    }

    /// `y` in float64. Tables are rows side by side.
    #[cfg(test)]
    pub(crate) fn reference(
        &self,
        words: &[f64],
        positions: Option<&[f64]>,
        types: Option<&[f64]>,
    ) -> Vec<f64> {
        let hidden = self.norm.scale.elem_count();
        let at = |table: Option<&[f64]>, row: usize, column: usize| {
            table.map_or(0.0, |table| table[row * hidden + column])
        };
        let mut sums = Vec::with_capacity(self.token_ids.len() * hidden);
        for range in self.cu_seqlens.ranges() {
            for token in range.clone() {
                let word = self.token_ids[token] as usize;
                let position = self.first_position + token - range.start;
                let kind = self.type_ids.map_or(0, |ids| ids[token] as usize);
                sums.extend((0..hidden).map(|column| {
                    at(Some(words), word, column)
                        + at(positions, position, column)
                        + at(types, kind, column)
                }));
            }
        }
        self.norm.reference(&sums)
    }
}

fn table_rows(name: &'static str, table: &Tensor, words: &Tensor) -> Result<usize, KernelError> {
    let operand = Operand { op: OP, name, tensor: table };
    let (rows, width, _) = operand.matrix()?;
    let hidden = words.dims()[1];
    if width != hidden {
        return Err(operand.shape_error(format!("rows of {hidden}, like the words")));
    }
    operand.expect(&[rows, width], words.dtype())?;
    Ok(rows)
}

fn largest(ids: &[u32]) -> Option<usize> {
    ids.iter().max().map(|&id| id as usize)
}

fn inside(what: &'static str, largest: Option<usize>, rows: usize) -> Result<(), KernelError> {
    match largest {
        Some(value) if value >= rows => {
            Err(KernelError::OutsideTable { op: OP, what, value, rows })
        }
        _ => Ok(()),
    }
}
