//! The online softmax of a few queries: tile by tile of keys, under a running maximum.

use std::ops::Range;

use crate::cpu::element::Element;
use crate::cpu::math::{exp2, largest, sum};
use crate::cpu::simd::Target;

/// A query's softmax so far.
#[derive(Clone, Copy)]
pub(super) struct Running {
    max: f32,
    pub(super) sum: f32,
}

impl Running {
    pub(super) const START: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };
}

/// How a query's dot products with a tile's keys become exponents of 2.
#[derive(Clone, Copy)]
pub(super) struct Exponents<'a> {
    /// The factor of the dot products, above zero: the scale times log2(e).
    pub(super) scale: f32,
    /// One a column of the tile, times log2(e) still to be taken.
    pub(super) bias: Option<&'a [f32]>,
}

/// Dot products to probabilities, not yet divided by their sum: `scores` and `probabilities` are whole lanes long, and
/// only the columns in `seen` count; the others become 0. Returns the factor by which earlier sums shrink.
#[inline(always)]
pub(super) fn online_softmax_tile<T: Target, E: Element>(
    scores: &mut [f32],
    seen: Range<usize>,
    exponents: Exponents<'_>,
    running: &mut Running,
    probabilities: &mut [E],
) -> f32 {
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let mut scale = exponents.scale;
    if let Some(bias) = exponents.bias {
        for (score, bias) in scores[seen.clone()].iter_mut().zip(&bias[seen]) {
            *score = T::mul_add(*score, scale, bias * std::f32::consts::LOG2_E);
        }
        scale = 1.0;
    }
    let max = running.max.max(largest(scores) * scale);
    // A query that has seen no key yet has nothing to subtract.
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    for score in scores.iter_mut() {
        *score = exp2::<T, E>(T::mul_add(*score, scale, -shift));
    }
    for (probability, power) in probabilities.iter_mut().zip(&*scores) {
        *probability = E::narrow(*power);
    }
    let keep = exp2::<T, f32>(running.max - shift);
    *running = Running { max, sum: running.sum * keep + sum(scores) };
    keep
}
