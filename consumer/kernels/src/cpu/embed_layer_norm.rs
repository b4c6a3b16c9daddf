//! `embed_layer_norm` on the processor.

use candle_core::Result;

use super::element::{Element, by_dtype};
use super::layer_norm::{NormRow, borrow_norm, normalize_row};
use super::rows::each_rows;
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::{borrow, write};
use crate::ops::embed_layer_norm::{EmbedLayerNorm, Operands};

pub(super) fn embed_layer_norm(
    op: &EmbedLayerNorm<'_>,
    Operands { words, positions, types, out }: Operands<'_>,
) -> Result<()> {
    let parameters = borrow_norm(op.norm);
    let norm = parameters.row()?;
    let words = borrow(words);
    let positions = positions.map(borrow);
    let types = types.map(borrow);
    let isa = Isa::best();
    let hidden = norm.scale.len();
    write(out, |out| {
        by_dtype!(out.dtype(), |E| {
            let tables = Tables {
                words: words.values::<E>()?,
                positions: positions.as_ref().map(|table| table.values()).transpose()?,
                types: types.as_ref().map(|table| table.values()).transpose()?,
            };
            each_rows(out.values::<E>()?, hidden, |rows, out| {
                gather_and_normalize(isa, out, rows.start, *op, tables, norm);
            });
        });
        Ok(())
    })
}

#[derive(Clone, Copy)]
struct Tables<'a, E> {
    words: &'a [E],
    positions: Option<&'a [E]>,
    types: Option<&'a [E]>,
}

dispatched! {
    /// For each token from `first` on the sum of its rows, normalised.
    fn gather_and_normalize<E>(
        out: &mut [E],
        first: usize,
        ids: EmbedLayerNorm<'_>,
        tables: Tables<'_, E>,
        norm: NormRow<'_>,
    ) = gather;
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
