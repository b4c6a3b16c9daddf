//! A decoder as an encoder's layers: every sequence is new and ends in one step, so nothing of it is remembered.

use std::iter::repeat;

use candle_core::Tensor;
use forebay_kernels::{PAGE_TOKENS, SequenceRows, StepRows};

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::Workspace;
use crate::error::EngineError;
use crate::families::decoder::Decoder;
use crate::families::decoder_config::DecoderConfig;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// A decoder of which the last hidden states are taken.
pub(crate) struct DecoderEncoder {
    decoder: Decoder,
    dtype: DType,
}

impl DecoderEncoder {
    /// Loads the layers for sequences of up to `positions` tokens.
    pub(crate) fn load(
        config: &DecoderConfig,
        tensors: &dyn Tensors,
        dtype: DType,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let decoder = Decoder::load_states(config.clone(), tensors, dtype, positions)?;
        Ok(Self { decoder, dtype })
    }
}

impl Layers for DecoderEncoder {
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        let pages_of = |tokens: usize| tokens.div_ceil(PAGE_TOKENS);
        let count: usize = sequences.cu_seqlens.ranges().map(|range| pages_of(range.len())).sum();
        let table: Vec<u32> = (0..count as u32).collect();
        let mut left = table.as_slice();
        let rows = sequences.cu_seqlens.ranges().map(|range| {
            let (pages, others) = left.split_at(pages_of(range.len()));
            left = others;
            SequenceRows { tokens: range.len(), position: 0, pages }
        });
        let step = StepRows::new(rows)?;
        // Keys and values are written and read within a layer: one store does for all.
        let pages = self.decoder.layer_memory(count, self.dtype.tensor())?;
        self.decoder.states(sequences.token_ids, &step, repeat(&pages), space)
    }
}
