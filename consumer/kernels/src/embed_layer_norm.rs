//! `embed_layer_norm`: token ids to the first hidden state.
//!
//! | | |
//! | --- | --- |
//! | formula | `y[t] = LayerNorm(words[id[t]] + positions[p[t]] + types[type[t]])`, `p[t]` counting from 0 in each sequence |
//! | shapes | `words`: `[vocabulary, hidden]`; `positions`: `[positions, hidden]`; `types`: `[types, hidden]`; `y`: `[tokens, hidden]` |
//! | dtype | f32; ids are u32 on the host |
//! | numerics | as `add_layer_norm` |
//! | source | Devlin et al. 2018 (BERT) |

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::layer_norm::{NormRow, normalize_row, rows_per_task};
use crate::operand::{Operand, borrow, values};
use crate::simd::{Isa, Target, dispatched};
use crate::{CuSeqlens, KernelError, LayerNorm};

const OP: &str = "embed_layer_norm";

/// Word, position and type rows, summed and normalised.
#[derive(Debug, Clone, Copy)]
pub struct EmbedLayerNorm<'a> {
    /// One id a token.
    pub token_ids: &'a [u32],
    /// One type id a token; `None` is type 0 everywhere.
    pub type_ids: Option<&'a [u32]>,
    /// Where sequences begin, which is where positions begin anew.
    pub cu_seqlens: &'a CuSeqlens,
    /// The normalisation.
    pub norm: &'a LayerNorm,
}

impl EmbedLayerNorm<'_> {
    /// Gives `[tokens, hidden]`. Every id and position must have a row in its table.
    pub fn forward(
        &self,
        words: &Tensor,
        positions: &Tensor,
        types: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let (vocabulary, hidden) = Operand { op: OP, name: "words", tensor: words }.matrix()?;
        let position_rows = table_rows("positions", positions, hidden)?;
        let type_rows = table_rows("types", types, hidden)?;
        self.norm.check(OP, hidden)?;
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
        inside("type id", self.type_ids.map_or(Some(0), largest), type_rows)?;
        let last_position = self
            .cu_seqlens
            .ranges()
            .map(|range| range.len())
            .max()
            .and_then(|len| len.checked_sub(1));
        inside("position", last_position, position_rows)?;
        Ok(words.apply_op3_no_bwd(positions, types, self)?)
    }

    /// Each token's rows in the three tables.
    fn rows(&self) -> Vec<[usize; 3]> {
        let positions = self.cu_seqlens.ranges().flat_map(|range| 0..range.len());
        let types = |token: usize| self.type_ids.map_or(0, |ids| ids[token] as usize);
        let rows = self.token_ids.iter().zip(positions).enumerate();
        rows.map(|(token, (&id, position))| [id as usize, position, types(token)]).collect()
    }
}

fn table_rows(name: &'static str, table: &Tensor, hidden: usize) -> Result<usize, KernelError> {
    let operand = Operand { op: OP, name, tensor: table };
    match operand.matrix()? {
        (rows, width) if width == hidden => Ok(rows),
        _ => Err(operand.shape_error(format!("rows of {hidden}, like the words"))),
    }
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

impl CustomOp3 for EmbedLayerNorm<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        words: &CpuStorage,
        words_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
        types: &CpuStorage,
        types_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let tables = [
            values(words, words_layout)?,
            values(positions, positions_layout)?,
            values(types, types_layout)?,
        ];
        let (scale, shift) = (borrow(&self.norm.scale), borrow(&self.norm.shift));
        let norm = NormRow { scale: scale.values()?, shift: shift.values()?, eps: self.norm.eps };
        let hidden = norm.scale.len();
        let rows = self.rows();
        let mut out = vec![0.0; rows.len() * hidden];
        if hidden > 0 {
            let task = rows_per_task(rows.len());
            let isa = Isa::best();
            out.par_chunks_mut(task * hidden)
                .zip(rows.par_chunks(task))
                .for_each(|(out, rows)| gather_and_normalize(isa, out, rows, tables, norm));
        }
        Ok((CpuStorage::F32(out), (rows.len(), hidden).into()))
    }
}

dispatched! {
    /// For each token the sum of its three rows, normalised.
    fn gather_and_normalize(out: &mut [f32], rows: &[[usize; 3]], tables: [&[f32]; 3], norm: NormRow<'_>) = gather;
}

#[inline(always)]
fn gather<T: Target>(out: &mut [f32], rows: &[[usize; 3]], tables: [&[f32]; 3], norm: NormRow<'_>) {
    let hidden = norm.scale.len();
    for (out, &[word, position, kind]) in out.chunks_exact_mut(hidden).zip(rows) {
        let word = &tables[0][word * hidden..][..hidden];
        let position = &tables[1][position * hidden..][..hidden];
        let kind = &tables[2][kind * hidden..][..hidden];
        for (((out, word), position), kind) in out.iter_mut().zip(word).zip(position).zip(kind) {
            *out = word + position + kind;
        }
        normalize_row::<T>(out, norm);
    }
}
