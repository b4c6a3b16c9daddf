//! A model that computes nothing, to measure what a job costs besides its model. It needs no weights file, only a
//! tokenizer.

use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;

use crate::encode::layers::{Layers, Sequences};
use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::load::config::from_json;
use crate::load::sizes::Sizes;

/// The no-op model's `config.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct NoopConfig {
    vocab_size: usize,
    hidden_size: usize,
    max_position_embeddings: usize,
}

impl NoopConfig {
    pub(super) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        let config: Self = from_json(path, json)?;
        config.sizes().check(path, 1)?;
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
