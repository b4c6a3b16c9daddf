//! An encoder: a family's layers, a head, and the team that runs them.

use candle_core::DType;

use crate::head::Head;
use crate::models::{Layers, Sizes};
use crate::team::Team;
use crate::{Encoder, EngineError, PackedBatch, Pending, Rows};

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
}

/// Refuses an item that the tables have no row for, or whose finish cannot be made.
pub(crate) fn check(sizes: Sizes, batch: &PackedBatch) -> Result<(), EngineError> {
    let Sizes { vocabulary, hidden, positions, .. } = sizes;
    for (index, (range, finish)) in batch.cu_seqlens().ranges().zip(batch.finishes()).enumerate() {
        let tokens = range.len();
        let outside = batch.token_ids()[range].iter().find(|&&id| id as usize >= vocabulary);
        let problem = if tokens > positions {
            format!("{tokens} tokens, the model has {positions} positions")
        } else if let Some(id) = outside {
            format!("token id {id} is outside the vocabulary of {vocabulary}")
        } else if let Some(asked) = finish.dimensions.filter(|&asked| asked == 0 || asked > hidden)
        {
            format!("{asked} dimensions asked, the model gives 1 to {hidden}")
        } else {
            continue;
        };
        return Err(EngineError::Item { index, problem });
    }
    Ok(())
}

impl Encoder for PackedEncoder {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        check(self.sizes, batch)?;
        let width = self.head.width(self.sizes.hidden);
        if batch.tokens() == 0 {
            return Ok(Pending::done(Rows { width, data: vec![0.0; batch.sequences() * width] }));
        }
        let data = self.team.run(batch, width, |sequences, finishes, space| {
            let hidden = self.layers.forward(sequences, space)?;
            let pooled = self.head.pooled(&hidden, sequences.cu_seqlens, finishes)?;
            let shape = pooled.dims2()?;
            self.head.finish(pooled.flatten_all()?.to_vec1()?, shape)
        })?;
        Ok(Pending::done(Rows { width, data }))
    }
}
