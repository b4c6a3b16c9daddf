//! How a page's keys and values lie on the processor.
//!
//! A page holds one head of keys and values after the other. A head's keys are a panel of the matrix product: 32 keys
//! as columns, `[dim, 32]`, a step after the other. Its values follow as panels of 32 dimensions, each `[32 tokens,
//! 32]`, a step after the other; the last panel is filled up with zeros. So attention multiplies both as they lie.

use super::element::Element;
use super::gemm::PANEL;
use crate::ops::pages::{PAGE_TOKENS, Pages};

// A page's keys are one panel.
const _: () = assert!(PANEL == PAGE_TOKENS);

/// Values of one panel of a page's values.
pub(super) const VALUE_PANEL: usize = PAGE_TOKENS * PANEL;

/// The sizes of a page.
#[derive(Clone, Copy)]
pub(super) struct PageLayout {
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
}

impl PageLayout {
    pub(super) fn of(pages: &Pages) -> Self {
        Self { kv_heads: pages.kv_heads(), dim: pages.head_dim() }
    }

    /// The size of a head rounded up to whole panels.
    #[inline(always)]
    pub(super) fn dims(self) -> usize {
        self.dim.next_multiple_of(PANEL)
    }

    /// Values of one head's keys.
    #[inline(always)]
    pub(super) fn keys(self) -> usize {
        self.dim * PAGE_TOKENS
    }

    /// Values of one head's part of a page.
    #[inline(always)]
    pub(super) fn head(self) -> usize {
        (self.dim + self.dims()) * PAGE_TOKENS
    }

    /// Values of a page.
    #[inline(always)]
    pub(super) fn page(self) -> usize {
        self.kv_heads * self.head()
    }

    /// Makes the values of a page zero. Probabilities of tokens that are not there are 0, but 0 times what another
    /// sequence left could be no number.
    #[inline(always)]
    pub(super) fn clear_values<E: Element>(self, page: &mut [E]) {
        for head in page.chunks_exact_mut(self.head()) {
            head[self.keys()..].fill(E::default());
        }
    }
}

/// Puts a key in its column of a panel of keys.
#[inline(always)]
pub(super) fn put_key<E: Element>(panel: &mut [E], slot: usize, key: &[f32]) {
    let lines = panel.chunks_exact_mut(PANEL * E::STEP);
    for (line, values) in lines.zip(key.chunks_exact(E::STEP)) {
        for (to, value) in line[slot * E::STEP..][..E::STEP].iter_mut().zip(values) {
            *to = E::narrow(*value);
        }
    }
}

/// Puts a token's values in its line of each panel of values.
#[inline(always)]
pub(super) fn put_value<E: Element>(panels: &mut [E], slot: usize, values: &[E]) {
    let first = slot / E::STEP * E::STEP * PANEL + slot % E::STEP;
    for (panel, values) in panels.chunks_exact_mut(VALUE_PANEL).zip(values.chunks(PANEL)) {
        for (to, value) in panel[first..].iter_mut().step_by(E::STEP).zip(values) {
            *to = *value;
        }
    }
}
