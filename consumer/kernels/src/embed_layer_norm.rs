//! `embed_layer_norm`: token ids to the first hidden state.
//!
//! | | |
//! | --- | --- |
//! | formula | `y[t] = LayerNorm(words[id[t]] + positions[p[t]] + types[type[t]])`, `p[t]` counting from `first_position` in each sequence |
//! | shapes | `words`: `[vocabulary, hidden]`; `positions`: `[positions, hidden]`; `types`: `[types, hidden]`; `y`: `[tokens, hidden]` |
//! | dtype | f32 or bf16 for tables and `y`, sums in f32; ids are u32 on the host |
//! | memory traffic | a row of each table and one of `y`, a token |
//! | numerics | as `layer_norm` |
//! | source | Devlin et al. 2018 (BERT); Liu et al. 2019 (RoBERTa, whose positions begin later) |

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};

use crate::element::{Element, by_dtype};
use crate::layer_norm::{NormRow, each_rows, normalize_row};
use crate::operand::{Operand, borrow, dtype, output, values, values_mut};
use crate::scratch::sized;
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
    /// The position of a sequence's first token.
    pub first_position: usize,
    /// The normalisation.
    pub norm: &'a LayerNorm,
}

impl EmbedLayerNorm<'_> {
    /// Gives `[tokens, hidden]`. Every id and position must have a row in its table; a table that the model lacks
    /// adds nothing.
    pub fn forward(
        &self,
        words: &Tensor,
        positions: Option<&Tensor>,
        types: Option<&Tensor>,
    ) -> Result<Tensor, KernelError> {
        let (_, hidden, _) = Operand { op: OP, name: "words", tensor: words }.matrix()?;
        let out = output(words, (self.token_ids.len(), hidden))?;
        self.forward_into(words, positions, types, &out)?;
        Ok(out)
    }

    /// The same into `out`: `[tokens, hidden]`.
    pub fn forward_into(
        &self,
        words: &Tensor,
        positions: Option<&Tensor>,
        types: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let (vocabulary, hidden, dtype) =
            Operand { op: OP, name: "words", tensor: words }.matrix()?;
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
        Ok(out.inplace_op2(words, &Gather { ids: *self, positions, types })?)
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

/// The operation, its operands checked.
struct Gather<'a> {
    ids: EmbedLayerNorm<'a>,
    positions: Option<&'a Tensor>,
    types: Option<&'a Tensor>,
}

impl InplaceOp2 for Gather<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        words: &CpuStorage,
        words_layout: &Layout,
    ) -> candle_core::Result<()> {
        let ids = self.ids;
        let parameters = ids.norm.borrow();
        let norm = parameters.row()?;
        let (positions, types) = (self.positions.map(borrow), self.types.map(borrow));
        let (isa, hidden) = (Isa::best(), norm.scale.len());
        by_dtype!(dtype(words), |E| {
            let tables = Tables {
                words: values::<E>(words, words_layout)?,
                positions: positions.as_ref().map(|table| table.values()).transpose()?,
                types: types.as_ref().map(|table| table.values()).transpose()?,
            };
            each_rows(values_mut::<E>(out, out_layout)?, hidden, |rows, out| {
                gather_and_normalize(isa, out, rows.start, ids, tables, norm);
            });
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut candle_core::CudaStorage,
        out_layout: &Layout,
        words: &candle_core::CudaStorage,
        words_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (out, words) = ((&*out, out_layout), (words, words_layout));
        crate::cuda::embed_layer_norm(&self.ids, out, words, self.positions, self.types)
    }
}

#[derive(Clone, Copy)]
struct Tables<'a, E> {
    words: &'a [E],
    positions: Option<&'a [E]>,
    types: Option<&'a [E]>,
}

dispatched! {
    /// For each token from `first` on the sum of its rows, normalised.
    fn gather_and_normalize<E>(out: &mut [E], first: usize, ids: EmbedLayerNorm<'_>, tables: Tables<'_, E>, norm: NormRow<'_>) = gather;
}

#[inline(always)]
fn gather<T: Target, E: Element>(
    out: &mut [E],
    first: usize,
    ids: EmbedLayerNorm<'_>,
    tables: Tables<'_, E>,
    norm: NormRow<'_>,
) {
    let hidden = norm.scale.len();
    let starts = ids.cu_seqlens.as_slice();
    // The sequence that the first token is in: the last one that begins at or before it.
    let mut sequence = starts.partition_point(|&start| start <= first) - 1;
    E::with_scratch(|scratch| {
        let row = sized(&mut scratch.floats, hidden);
        for (index, out) in out.chunks_exact_mut(hidden).enumerate() {
            let token = first + index;
            while starts[sequence + 1] <= token {
                sequence += 1;
            }
            let word = ids.token_ids[token] as usize * hidden;
            for (value, word) in row.iter_mut().zip(&tables.words[word..][..hidden]) {
                *value = word.widen();
            }
            let position = (token - starts[sequence] + ids.first_position) * hidden;
            let kind = ids.type_ids.map_or(0, |ids| ids[token] as usize) * hidden;
            for (table, start) in [(tables.positions, position), (tables.types, kind)] {
                let Some(table) = table else { continue };
                for (value, addend) in row.iter_mut().zip(&table[start..][..hidden]) {
                    *value += addend.widen();
                }
            }
            normalize_row::<T, E>(row, norm, out);
        }
    });
}
