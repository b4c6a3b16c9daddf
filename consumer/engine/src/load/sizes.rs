//! The sizes that all architectures have, with the bounds that they are checked against before anything is allocated.

use std::path::Path;

use crate::error::EngineError;
use crate::load::options::DType;

/// No size of a model comes near it, and three times the square of it is no overflow.
const SIZE_MAX: usize = 1 << 24;
/// Four times what the encoders with the most positions read.
const POSITIONS_MAX: usize = 32_768;
/// Four times the largest in use.
const HEAD_SIZE_MAX: usize = 1_024;

/// The sizes of a model, from its `config.json`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Rows of the word table: token ids are below it.
    pub(crate) vocabulary: usize,
    /// Values of a hidden state.
    pub(crate) hidden: usize,
    /// Values of the state inside the feed-forward half.
    pub(crate) inner: usize,
    /// The most tokens of a sequence.
    pub(crate) positions: usize,
    /// Rows of the type table; 0 where there is none.
    pub(crate) types: usize,
}

impl Sizes {
    /// Refuses sizes that nothing can be computed with, or that no model has: tables are made by some of them.
    pub(crate) fn check(self, path: &Path, heads: usize) -> Result<Self, EngineError> {
        let sizes = [self.vocabulary, self.hidden, self.inner, self.positions, heads];
        let problem = if sizes.contains(&0) {
            "a size is zero".to_owned()
        } else if !self.hidden.is_multiple_of(heads) {
            format!("the hidden size {} is not a multiple of {heads} heads", self.hidden)
        } else if sizes.iter().any(|&size| size > SIZE_MAX) || self.types > SIZE_MAX {
            format!("a size is above {SIZE_MAX}")
        } else if self.positions > POSITIONS_MAX {
            format!("{} positions; at most {POSITIONS_MAX} are supported", self.positions)
        } else if self.hidden / heads > HEAD_SIZE_MAX {
            format!("heads of {}; at most {HEAD_SIZE_MAX} are supported", self.hidden / heads)
        } else {
            return Ok(self);
        };
        Err(EngineError::Config { path: path.to_owned(), problem })
    }

    /// An upper bound of the memory, in bytes, that a token takes while it is computed. Of one layer: the input, the
    /// three projections, the context, the sum, a projection, and the intermediate activations before and after a gate.
    pub(crate) fn bytes_per_token(self, dtype: DType) -> usize {
        let values = self.hidden.saturating_mul(8).saturating_add(self.inner.saturating_mul(3));
        values.saturating_mul(dtype.tensor().size_in_bytes())
    }
}
