//! An encoder on the processor: a family's layers and a head, run by a thread pool.

use candle_core::DType;

use crate::encode::batch::{PackedBatch, Rows};
use crate::encode::encoder::{Encoder, Pending};
use crate::encode::head::Head;
use crate::encode::layers::Layers;
use crate::encode::thread_pool::ThreadPool;
use crate::error::EngineError;
use crate::load::sizes::Sizes;

/// An encoder on the processor.
pub(crate) struct CpuEncoder {
    sizes: Sizes,
    layers: Box<dyn Layers>,
    head: Head,
    thread_pool: ThreadPool,
}

impl CpuEncoder {
    /// An encoder that computes in `dtype` on as many worker threads.
    pub(crate) fn new(
        sizes: Sizes,
        layers: Box<dyn Layers>,
        head: Head,
        threads: usize,
        dtype: DType,
    ) -> Result<Self, EngineError> {
        let thread_pool = ThreadPool::new(threads, sizes.hidden, dtype)?;
        Ok(Self { sizes, layers, head, thread_pool })
    }
}

impl Encoder for CpuEncoder {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        let width = self.head.width(self.sizes.hidden);
        batch.check(self.sizes, self.head.dimensions(self.sizes.hidden))?;
        if batch.tokens() == 0 {
            return Ok(Pending::done(Rows {
                width,
                data: vec![0.0; batch.sequences() * width],
                ends: None,
            }));
        }
        let data = self.thread_pool.run(batch, width, |sequences, finishes, space| {
            let hidden = self.layers.forward(sequences, space)?;
            let pooled = self.head.pooled(&hidden, sequences, finishes)?;
            self.head.finish(pooled.flatten_all()?.to_vec1()?, finishes)
        })?;
        Ok(Pending::done(Rows { width, data, ends: None }))
    }
}
