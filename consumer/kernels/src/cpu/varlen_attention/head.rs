//! One head of one sequence, as a task reads it.

use std::ops::Range;

use crate::cpu::element::Element;
use crate::cpu::gemm::RowsOf;
use crate::ops::mask::Mask;

/// One head's queries, keys and values in one sequence's packed rows.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, E> {
    pub(super) qkv: &'a [E],
    pub(super) hidden: usize,
    pub(super) dim: usize,
    pub(super) first: usize,
    pub(super) mask: Mask,
    /// How many tokens are seen as keys, from the first on.
    pub(super) seen: usize,
    pub(super) scale: f32,
    /// The middle one is for a distance of 0.
    pub(super) distance_bias: Option<&'a [f32]>,
    /// The bias that the queries and the values lack.
    pub(super) biases: Option<[&'a [f32]; 2]>,
}

impl<'a, E: Element> Head<'a, E> {
    pub(super) fn tokens(self) -> usize {
        self.qkv.len() / (3 * self.hidden)
    }

    /// The keys that a query sees. Both ends only grow with `query`.
    #[inline(always)]
    pub(super) fn keys_of(self, query: usize) -> Range<usize> {
        let keys = self.mask.keys(query, self.tokens());
        keys.start..keys.end.min(self.seen)
    }

    /// `count` queries from the one at `first` on.
    #[inline(always)]
    pub(super) fn queries(self, first: usize, count: usize) -> RowsOf<'a, E> {
        let stride = 3 * self.hidden;
        RowsOf::new(&self.qkv[first * stride + self.first..], stride, count, self.dim)
    }

    #[inline(always)]
    pub(super) fn keys(self, token: usize) -> &'a [E] {
        &self.qkv[(3 * token + 1) * self.hidden + self.first..][..self.dim]
    }

    #[inline(always)]
    pub(super) fn values(self, token: usize) -> &'a [E] {
        &self.qkv[(3 * token + 2) * self.hidden + self.first..][..self.dim]
    }

    /// The bias that is added to the scores of a query's keys from `first_key` on.
    #[inline(always)]
    pub(super) fn bias(self, query: usize, first_key: usize, keys: usize) -> Option<&'a [f32]> {
        self.distance_bias.map(|bias| &bias[bias.len() / 2 + first_key - query..][..keys])
    }
}
