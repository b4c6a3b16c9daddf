//! A model that computes nothing, to measure what a job costs besides its model. It needs no weights file, only a
//! tokenizer.

use candle_core::Tensor;

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::load::fields::Fields;
use crate::load::sizes::Sizes;

/// The no-op model's `config.json`.
#[derive(Debug)]
pub(crate) struct NoopConfig {
    vocab_size: usize,
    hidden_size: usize,
    max_position_embeddings: usize,
}

impl NoopConfig {
    pub(super) fn parse(fields: &mut Fields) -> Result<Self, EngineError> {
        let config = Self {
            vocab_size: fields.required("vocab_size")?,
            hidden_size: fields.required("hidden_size")?,
            max_position_embeddings: fields.required("max_position_embeddings")?,
        };
        config.sizes().check(fields.path(), 1)?;
        Ok(config)
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            inner: 1,
            positions: self.max_position_embeddings,
            types: 0,
        }
    }
}

/// The no-op model's layers.
pub(super) struct Noop {
    hidden: usize,
}

impl Noop {
    pub(super) fn new(config: &NoopConfig) -> Self {
        Self { hidden: config.hidden_size }
    }
}

impl Layers for Noop {
    /// Returns zeros: nothing else writes to the buffer.
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        space.take(Slot::Hidden, sequences.token_ids.len(), self.hidden)
    }
}
