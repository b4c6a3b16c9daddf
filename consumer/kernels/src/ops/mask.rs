//! Masks of attention: which keys of its sequence a query sees.

use std::ops::Range;

/// Which keys of its sequence a query sees. It always sees itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    #[default]
    Bidirectional,
    /// Its own and those before it.
    Causal,
    /// Those at most so far away, on both sides.
    Window(usize),
}

impl Mask {
    /// The keys that the query at `query` sees in a sequence of `tokens`. Both ends only grow with `query`.
    #[inline(always)]
    pub(crate) fn keys(self, query: usize, tokens: usize) -> Range<usize> {
        match self {
            Self::Bidirectional => 0..tokens,
            Self::Causal => 0..query + 1,
            Self::Window(distance) => {
                query.saturating_sub(distance)..tokens.min(query.saturating_add(distance) + 1)
            }
        }
    }

    /// Whether the query at `query` sees the key at `key`: what [`Self::keys`] is checked against.
    #[cfg(test)]
    pub(crate) fn sees(self, query: usize, key: usize) -> bool {
        match self {
            Self::Bidirectional => true,
            Self::Causal => key <= query,
            Self::Window(distance) => key.abs_diff(query) <= distance,
        }
    }
}
