//! Packed sequences: where each begins and ends.

#[cfg(feature = "cuda")]
use std::any::Any;
use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::{Arc, OnceLock};

use crate::error::KernelError;

/// A back-end's copy of the offsets, once it has made one. It is neither compared nor cloned.
#[cfg(feature = "cuda")]
#[derive(Debug, Default)]
struct Derived(OnceLock<Arc<dyn Any + Send + Sync>>);

#[cfg(feature = "cuda")]
impl Clone for Derived {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(feature = "cuda")]
impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(feature = "cuda")]
impl Eq for Derived {}

/// Cumulative sequence lengths: `sequences + 1` offsets, from 0 to the number of tokens, never decreasing.
/// A sequence may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CuSeqlens {
    offsets: Vec<usize>,
    #[cfg(feature = "cuda")]
    derived: Derived,
}

impl Default for CuSeqlens {
    fn default() -> Self {
        Self::of(vec![0])
    }
}

impl CuSeqlens {
    fn of(offsets: Vec<usize>) -> Self {
        Self {
            offsets,
            #[cfg(feature = "cuda")]
            derived: Derived::default(),
        }
    }

    /// A back-end's form of the offsets, such as a copy on its device: made at the first call and kept until they
    /// change. `None` where the call before asked for another type.
    #[cfg(feature = "cuda")]
    pub(crate) fn derived<T: Any + Send + Sync, E>(
        &self,
        make: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<Option<Arc<T>>, E> {
        let derived = if let Some(derived) = self.derived.0.get() {
            derived.clone()
        } else {
            let made: Arc<dyn Any + Send + Sync> = Arc::new(make(self)?);
            self.derived.0.get_or_init(|| made).clone()
        };
        Ok(derived.downcast().ok())
    }

    /// No sequences.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sequence of `tokens` tokens.
    pub fn push(&mut self, tokens: usize) {
        self.offsets.push(self.tokens() + tokens);
        #[cfg(feature = "cuda")]
        std::mem::take(&mut self.derived);
    }

    /// Removes all sequences and keeps the memory.
    pub fn clear(&mut self) {
        self.offsets.truncate(1);
        #[cfg(feature = "cuda")]
        std::mem::take(&mut self.derived);
    }

    /// Tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The tokens of the sequence at `index`.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// The tokens of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The offsets themselves.
    pub fn as_slice(&self) -> &[usize] {
        &self.offsets
    }
}

impl FromIterator<usize> for CuSeqlens {
    /// From the lengths of the sequences.
    fn from_iter<I: IntoIterator<Item = usize>>(lengths: I) -> Self {
        let mut cu_seqlens = Self::new();
        for tokens in lengths {
            cu_seqlens.push(tokens);
        }
        cu_seqlens
    }
}

impl TryFrom<Vec<usize>> for CuSeqlens {
    type Error = KernelError;

    /// From offsets, which are checked.
    fn try_from(offsets: Vec<usize>) -> Result<Self, KernelError> {
        if offsets.first() != Some(&0) {
            return Err(KernelError::CuSeqlens {
                index: 0,
                value: offsets.first().copied().unwrap_or_default(),
            });
        }
        match offsets.windows(2).position(|ends| ends[1] < ends[0]) {
            Some(before) => {
                Err(KernelError::CuSeqlens { index: before + 1, value: offsets[before + 1] })
            }
            None => Ok(Self::of(offsets)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_and_offsets_agree() {
        let from_lengths: CuSeqlens = [3, 0, 2].into_iter().collect();
        assert_eq!(from_lengths, CuSeqlens::try_from(vec![0, 3, 3, 5]).unwrap());
        assert_eq!(from_lengths.ranges().collect::<Vec<_>>(), [0..3, 3..3, 3..5]);
        assert_eq!((from_lengths.tokens(), from_lengths.sequences()), (5, 3));
    }

    #[test]
    fn clearing_removes_every_sequence() {
        let mut cu_seqlens: CuSeqlens = [3, 4].into_iter().collect();
        cu_seqlens.clear();
        assert_eq!(cu_seqlens, CuSeqlens::new());
    }

    #[test]
    fn offsets_that_go_backwards_or_begin_late_are_refused_where_they_do() {
        for (offsets, wrong) in [(vec![], 0), (vec![1, 2], 0), (vec![0, 5, 4, 6], 2)] {
            let error = CuSeqlens::try_from(offsets).unwrap_err();
            assert!(
                matches!(error, KernelError::CuSeqlens { index, .. } if index == wrong),
                "{error}"
            );
        }
    }
}
