//! How a page's keys and values lie on the processor.
//!
//! A page holds one head of keys and values after the other. A head's keys are a panel of the matrix product: 32 keys
//! as columns, `[dim, 32]`, a step after the other. Its values follow as panels of 32 dimensions, each `[32 tokens,
//! 32]`, a step after the other; the last panel is filled up with zeros. So attention multiplies both as they lie.
//!
//! A page of latent attention holds keys alone: its values are the first lines of the panel of keys, and
//! [`PageLayout::transpose`] makes panels of values of them.

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
    /// Of a key.
    pub(super) dim: usize,
    /// Of a token's values.
    pub(super) value_dim: usize,
    /// Whether these are the first values of the key.
    pub(super) is_latent: bool,
}

impl PageLayout {
    pub(super) fn of(pages: &Pages) -> Self {
        Self {
            kv_heads: pages.kv_heads(),
            dim: pages.head_dim(),
            value_dim: pages.value_dim(),
            is_latent: pages.is_latent(),
        }
    }

    /// A token's values rounded up to whole panels.
    #[inline(always)]
    pub(super) fn dims(self) -> usize {
        self.value_dim.next_multiple_of(PANEL)
    }

    /// Values of one head's keys.
    #[inline(always)]
    pub(super) fn keys(self) -> usize {
        self.dim * PAGE_TOKENS
    }

    /// Values of one head's part of a page.
    #[inline(always)]
    pub(super) fn head(self) -> usize {
        (self.dim + if self.is_latent { 0 } else { self.dims() }) * PAGE_TOKENS
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
            head[if self.is_latent { 0 } else { self.keys() }..].fill(E::default());
        }
    }

    /// Panels of the values of a latent page, as long as [`Self::dims`] lines, from its keys. What is in columns beyond
    /// a token's values is not defined.
    #[inline(always)]
    pub(super) fn transpose<E: Element>(keys: &[E], values: &mut [E]) {
        let panels = keys.chunks(VALUE_PANEL).zip(values.chunks_exact_mut(VALUE_PANEL));
        for (keys, values) in panels {
            for (column, from) in keys.chunks_exact(PANEL * E::STEP).enumerate() {
                // A step of dimensions of each step of tokens: a square, which is turned over.
                let squares = from.chunks_exact(E::STEP * E::STEP);
                for (line, from) in values.chunks_exact_mut(PANEL * E::STEP).zip(squares) {
                    let to = &mut line[column * E::STEP * E::STEP..][..E::STEP * E::STEP];
                    for (at, to) in to.iter_mut().enumerate() {
                        *to = from[at % E::STEP * E::STEP + at / E::STEP];
                    }
                }
            }
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
