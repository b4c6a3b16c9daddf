//! An encoder: a family's layers, a head, and the team that runs them.

use candle_core::DType;

use crate::head::Head;
use crate::models::{Layers, Sizes};
use crate::team::Team;
use crate::{Encoder, EngineError, PackedBatch, Rows};

/// An encoder on the processor.
pub(crate) struct PackedEncoder {
    sizes: Sizes,
    layers: Box<dyn Layers>,
    head: Head,
    team: Team,
}

impl PackedEncoder {
    pub(crate) fn new(
        sizes: Sizes,
        layers: Box<dyn Layers>,
        head: Head,
        threads: usize,
        dtype: DType,
    ) -> Result<Self, EngineError> {
        Ok(Self { sizes, layers, head, team: Team::new(threads, sizes.hidden, dtype)? })
    }

    /// Refuses an item that the tables have no row for, or whose finish cannot be made.
    fn check(&self, batch: &PackedBatch) -> Result<(), EngineError> {
        let Sizes { vocabulary, hidden, positions, .. } = self.sizes;
        for (index, (range, finish)) in
            batch.cu_seqlens().ranges().zip(batch.finishes()).enumerate()
        {
            let tokens = range.len();
            let outside = batch.token_ids()[range].iter().find(|&&id| id as usize >= vocabulary);
            let problem = if tokens > positions {
                format!("{tokens} tokens, the model has {positions} positions")
            } else if let Some(id) = outside {
                format!("token id {id} is outside the vocabulary of {vocabulary}")
            } else if let Some(asked) =
                finish.dimensions.filter(|&asked| asked == 0 || asked > hidden)
            {
                format!("{asked} dimensions asked, the model gives 1 to {hidden}")
            } else {
                continue;
            };
            return Err(EngineError::Item { index, problem });
        }
        Ok(())
    }
}

impl Encoder for PackedEncoder {
    fn compute(&mut self, batch: &PackedBatch) -> Result<Rows, EngineError> {
        self.check(batch)?;
        let width = self.head.width(self.sizes.hidden);
        if batch.tokens() == 0 {
            return Ok(Rows { width, data: vec![0.0; batch.sequences() * width] });
        }
        let data = self.team.run(batch, width, |sequences, finishes, space| {
            let hidden = self.layers.forward(sequences, space)?;
            self.head.rows(&hidden, sequences.cu_seqlens, finishes)
        })?;
        Ok(Rows { width, data })
    }
}
