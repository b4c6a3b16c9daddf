//! An encoder on the processor whose rows are made of every token: as long as a text has words or tokens.

use candle_core::DType;

use crate::encode::batch::{PackedBatch, Rows};
use crate::encode::dense::DenseLayer;
use crate::encode::encoder::{Encoder, Pending};
use crate::encode::layers::{Layers, Sequences};
use crate::encode::splade::Splade;
use crate::encode::thread_pool::ThreadPool;
use crate::encode::token_vectors::TokenVectors;
use crate::error::EngineError;
use crate::load::sizes::Sizes;

/// The last stage of such an encoder.
pub(crate) enum PerTokenHead {
    /// Sparse vectors.
    Sparse(Splade),
    /// A vector for each token.
    Tokens(TokenVectors),
}

impl PerTokenHead {
    /// Values of a vector: words of the vocabulary, or what the last layer gives.
    pub(crate) fn dim(&self, sizes: Sizes) -> usize {
        match self {
            Self::Sparse(_) => sizes.vocabulary,
            Self::Tokens(tokens) => tokens.dense.last().map_or(sizes.hidden, DenseLayer::outputs),
        }
    }

    /// How many values belong together in a row: a dimension and its value, or a whole vector.
    fn width(&self, sizes: Sizes) -> usize {
        match self {
            Self::Sparse(_) => 2,
            Self::Tokens(_) => self.dim(sizes),
        }
    }
}

/// An encoder of sparse vectors or token vectors.
pub(crate) struct PerTokenEncoder {
    sizes: Sizes,
    layers: Box<dyn Layers>,
    head: PerTokenHead,
    thread_pool: ThreadPool,
    /// The token that queries are filled up with, where the model's other tokens don't see it.
    unseen: Option<u32>,
}

impl PerTokenEncoder {
    /// An encoder that computes in `dtype` on as many worker threads.
    pub(crate) fn new(
        sizes: Sizes,
        layers: Box<dyn Layers>,
        head: PerTokenHead,
        unseen: Option<u32>,
        threads: usize,
        dtype: DType,
    ) -> Result<Self, EngineError> {
        let thread_pool = ThreadPool::new(threads, sizes.hidden, dtype)?;
        Ok(Self { sizes, layers, head, thread_pool, unseen })
    }

    /// How many tokens of each sequence are seen: all but those that fill up its end.
    fn seen(&self, sequences: Sequences<'_>) -> Option<Vec<usize>> {
        let unseen = self.unseen?;
        let seen = |range: std::ops::Range<usize>| {
            let ids = &sequences.token_ids[range];
            ids.iter().rposition(|&id| id != unseen).map_or(ids.len(), |last| last + 1)
        };
        Some(sequences.cu_seqlens.ranges().map(seen).collect())
    }
}

impl Encoder for PerTokenEncoder {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        batch.check(self.sizes, self.sizes.hidden)?;
        let mut rows = vec![Vec::new(); batch.sequences()];
        if batch.tokens() > 0 {
            let groups = self.thread_pool.each_group(batch, |sequences, _, space| {
                let seen = self.seen(sequences);
                let sequences = Sequences { seen: seen.as_deref(), ..sequences };
                let hidden = self.layers.forward(sequences, space)?;
                match &self.head {
                    PerTokenHead::Sparse(head) => head.rows(&hidden, sequences),
                    PerTokenHead::Tokens(head) => head.rows(&hidden, sequences),
                }
            })?;
            for (group, values) in groups {
                for (sequence, values) in group.into_iter().zip(values) {
                    rows[sequence] = values;
                }
            }
        }
        Ok(Pending::done(Rows::uneven(self.head.width(self.sizes), &rows)))
    }
}
