//! A head's keys and values as the panels that matrix products take.
#![allow(unsafe_code)]

use super::head::Head;
use crate::cpu::element::Element;
use crate::cpu::gemm::PANEL;
use crate::cpu::simd::Target;

/// Panels that hold `tokens` keys.
pub(super) fn key_panels(tokens: usize) -> usize {
    tokens.div_ceil(PANEL)
}

/// Keys as columns: panels of [`PANEL`] keys, each `[dim, PANEL]`, a word of a step after the other. Past the last
/// key it is repeated; no query sees it there.
#[inline(always)]
pub(super) fn pack_keys<T: Target, E: Element>(head: Head<'_, E>, keys: &mut [E]) {
    let tokens = head.tokens();
    let words = head.dim / E::STEP;
    for (panel, keys) in keys.chunks_exact_mut(head.dim * PANEL).enumerate() {
        for first in (0..PANEL).step_by(T::WIDTH) {
            let row = |index: usize| {
                let token = (panel * PANEL + first + index).min(tokens - 1);
                head.keys(token).as_ptr().cast::<u32>()
            };
            let whole = words / T::WIDTH * T::WIDTH;
            for word in (0..whole).step_by(T::WIDTH) {
                // SAFETY: a key's row holds `words` words, of which these are the `T::WIDTH` from `word` on; of
                // the panel's lines they become as many, `PANEL` words long, from column `first` on. The set is
                // there because only code compiled for it is generic over it.
                unsafe {
                    let to = keys.as_mut_ptr().cast::<u32>().add(word * PANEL + first);
                    T::transpose(|index| row(index).add(word), to, PANEL);
                }
            }
            for word in whole..words {
                for index in 0..T::WIDTH {
                    // SAFETY: as above, a word at a time.
                    unsafe {
                        let to = keys.as_mut_ptr().cast::<u32>().add(word * PANEL + first + index);
                        to.write_unaligned(row(index).add(word).read_unaligned());
                    }
                }
            }
        }
    }
}

/// Values as rows: panels of [`PANEL`] dimensions, each `[tokens, PANEL]`, a step after the other. Where a step lacks
/// its last row that is zero.
#[inline(always)]
pub(super) fn pack_values<E: Element>(head: Head<'_, E>, values: &mut [E]) {
    let tokens = head.tokens();
    let steps = tokens.div_ceil(E::STEP);
    for (panel, values) in values.chunks_exact_mut(steps * E::STEP * PANEL).enumerate() {
        let first = panel * PANEL;
        let width = PANEL.min(head.dim - first);
        for (step, line) in values.chunks_exact_mut(E::STEP * PANEL).enumerate() {
            let token = step * E::STEP;
            let row = &head.values(token)[first..first + width];
            if !E::HAS_PAIRS {
                line[..width].copy_from_slice(row);
            } else if token + 1 < tokens {
                let next = &head.values(token + 1)[first..first + width];
                for ((pair, a), b) in line.chunks_exact_mut(2).zip(row).zip(next) {
                    pair[0] = *a;
                    pair[1] = *b;
                }
            } else {
                for (pair, a) in line.chunks_exact_mut(2).zip(row) {
                    pair[0] = *a;
                    pair[1] = E::default();
                }
            }
        }
    }
}
