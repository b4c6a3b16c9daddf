//! The seam that encoders of all devices stand behind.

use crate::encode::batch::{PackedBatch, Rows};
use crate::error::EngineError;

/// A model that turns packed sequences into rows of numbers, driven by one thread at a time.
///
/// It is a pure function of a batch: a sequence's row does not depend on other sequences or on earlier batches. On GPUs
/// its last bits may depend on the batch, where cuBLAS computes a linear layer or where a fused kernel was measured to
/// be faster for that many rows: see the documentation of `forebay_kernels`.
pub trait Encoder: Send {
    /// Computes one row a sequence: a vector, pooled as the model defines and finished as each sequence asks; or
    /// scores.
    ///
    /// An empty sequence's vector is zeros. Nothing in a batch makes this panic: an item that cannot be
    /// computed is [`EngineError::Item`], and the batch computes without it.
    fn compute(&mut self, batch: &PackedBatch) -> Result<Rows, EngineError> {
        self.begin(batch)?.wait()
    }

    /// Begins what [`Encoder::compute`] does. A device that computes by itself goes on after this returns, and takes up
    /// to [`Encoder::ahead`] batches before the first of them is waited for.
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError>;

    /// How many batches are worth beginning before the first is waited for. At least one.
    fn ahead(&self) -> usize {
        1
    }
}

/// The rows of a batch that was begun.
pub struct Pending(Box<dyn FnOnce() -> Result<Rows, EngineError> + Send>);

impl Pending {
    /// Rows that `wait` blocks for.
    pub fn new(wait: impl FnOnce() -> Result<Rows, EngineError> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Rows that are already computed.
    pub fn done(rows: Rows) -> Self {
        Self::new(move || Ok(rows))
    }

    /// Blocks until the rows are computed.
    pub fn wait(self) -> Result<Rows, EngineError> {
        (self.0)()
    }
}
