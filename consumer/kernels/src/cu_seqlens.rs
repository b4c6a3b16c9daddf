//! Where each packed sequence begins and ends.

use std::ops::Range;

use crate::KernelError;

/// Cumulative sequence lengths: `sequences + 1` offsets, from 0 to the number of tokens, never decreasing.
/// A sequence may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CuSeqlens(Vec<usize>);

impl Default for CuSeqlens {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl CuSeqlens {
    /// No sequences.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sequence of `tokens` tokens.
    pub fn push(&mut self, tokens: usize) {
        self.0.push(self.tokens() + tokens);
    }

    /// Forgets all sequences and keeps the memory.
    pub fn clear(&mut self) {
        self.0.truncate(1);
    }

    /// Tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.0.last().copied().unwrap_or_default()
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.0.len() - 1
    }

    /// The tokens of the sequence at `index`.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.0[index]..self.0[index + 1]
    }

    /// The tokens of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The offsets themselves.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
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
            None => Ok(Self(offsets)),
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
    fn clearing_forgets_every_sequence() {
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
