//! The softmax of a few queries, tile by tile of keys, under a running maximum.

use std::ops::Range;

use crate::element::Element;
use crate::math::{LANES, exp2, largest_lane, sum_lanes};
use crate::simd::Target;

/// A query's softmax so far.
#[derive(Clone, Copy)]
pub(super) struct Running {
    max: f32,
    pub(super) sum: f32,
}

impl Running {
    pub(super) const START: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };
}

/// What turns a query's products with a tile's keys into exponents of 2.
#[derive(Clone, Copy)]
pub(super) struct Exponents<'a> {
    /// What products are multiplied with: the scale times log2(e).
    pub(super) scale: f32,
    /// One a column of the tile, times log2(e) still to be taken.
    pub(super) bias: Option<&'a [f32]>,
}

/// Products to probabilities, not yet divided by their sum: `scores` and `probabilities` are whole lanes long, and
/// only the columns in `seen` count; the others become 0. Returns the factor by which earlier sums shrink.
#[inline(always)]
pub(super) fn soften<T: Target, E: Element>(
    scores: &mut [f32],
    seen: Range<usize>,
    exponents: Exponents<'_>,
    running: &mut Running,
    probabilities: &mut [E],
) -> f32 {
    if let Some(bias) = exponents.bias {
        for (score, bias) in scores[seen.clone()].iter_mut().zip(&bias[seen.clone()]) {
            *score = T::mul_add(*score, exponents.scale, bias * std::f32::consts::LOG2_E);
        }
    } else {
        for score in scores.iter_mut() {
            *score *= exponents.scale;
        }
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let (chunks, _) = scores.as_chunks::<LANES>();
    let mut lanes = [running.max; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let max = largest_lane(lanes);
    // A query that has seen no key yet has nothing to subtract.
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let mut lanes = [0.0; LANES];
    let (rows, _) = probabilities.as_chunks_mut::<LANES>();
    for (chunk, row) in chunks.iter().zip(rows) {
        for ((value, lane), probability) in chunk.iter().zip(&mut lanes).zip(row) {
            let power = exp2::<T, E>(*value - shift);
            *lane += power;
            *probability = E::narrow(power);
        }
    }
    let keep = exp2::<T, f32>(running.max - shift);
    *running = Running { max, sum: running.sum * keep + sum_lanes(lanes) };
    keep
}
