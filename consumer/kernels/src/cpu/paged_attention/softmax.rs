//! The softmax of one query over one tile of keys, and tiles added up in the order of positions.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use crate::cpu::element::Element;
use crate::cpu::math::{exp2, largest, sum};
use crate::cpu::simd::Target;

/// How dot products become exponents of 2.
#[derive(Clone, Copy)]
pub(super) struct Exponents {
    /// The factor of the dot products, or of what the cap makes of them; above zero.
    scale: f32,
    /// The factor of dot products before they are bent.
    bend: Option<f32>,
}

impl Exponents {
    pub(super) fn new(scale: f32, soft_cap: Option<f32>) -> Self {
        match soft_cap {
            Some(cap) => Self { scale: cap * LOG2_E, bend: Some(scale / cap) },
            None => Self { scale: scale * LOG2_E, bend: None },
        }
    }
}

/// A query's largest exponent so far, and the sum of its powers below that.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl Partial {
    /// Of a query that has seen nothing.
    pub(super) const NONE: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Of a query that has seen its head's sink.
    pub(super) fn of_sink(sink: f32) -> Self {
        Self { max: sink * LOG2_E, sum: 1.0 }
    }

    /// Adds a tile; gives the factors of the weighed values so far and of the tile's.
    #[inline(always)]
    pub(super) fn add<T: Target>(&mut self, tile: Self) -> [f32; 2] {
        let max = self.max.max(tile.max);
        // Not left to `exp2`, which gives 1 only nearly.
        let factor = |of: f32| if of >= max { 1.0 } else { exp2::<T, f32>(of - max) };
        let factors = [factor(self.max), factor(tile.max)];
        *self = Self { max, sum: T::mul_add(self.sum, factors[0], tile.sum * factors[1]) };
        factors
    }
}

/// Dot products to probabilities, not yet divided by their sum: both are whole lanes long, and only the columns in
/// `seen` count; the others become 0. How many of these there are on either side changes no bit.
#[inline(always)]
pub(super) fn softmax_tile<T: Target, E: Element>(
    scores: &mut [f32],
    seen: Range<usize>,
    exponents: Exponents,
    probabilities: &mut [E],
) -> Partial {
    if seen.is_empty() {
        probabilities.fill(E::default());
        return Partial::NONE;
    }
    if let Some(bend) = exponents.bend {
        for score in &mut scores[seen.clone()] {
            *score = tanh::<T>(*score * bend);
        }
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let max = largest(scores) * exponents.scale;
    // Where nothing is a number above minus infinity, there is nothing to subtract.
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    for score in scores.iter_mut() {
        *score = exp2::<T, E>(T::mul_add(*score, exponents.scale, -shift));
    }
    for (probability, power) in probabilities.iter_mut().zip(&*scores) {
        *probability = E::narrow(*power);
    }
    Partial { max, sum: sum(scores) }
}

/// The hyperbolic tangent: near zero its series, whose relative error is 2e-7 there; else by `exp2`, with 3e-7.
/// NaN stays NaN.
#[inline(always)]
fn tanh<T: Target>(x: f32) -> f32 {
    /// Where the series ends to be better.
    const NEAR: f32 = 0.3;
    let square = x * x;
    let mut series = T::mul_add(square, 62.0 / 2835.0, -17.0 / 315.0);
    series = T::mul_add(series, square, 2.0 / 15.0);
    series = T::mul_add(series, square, -1.0 / 3.0);
    series = T::mul_add(series * square, x, x);
    let size = x.abs();
    // Beyond, the result is 1 in any case.
    let bounded = if size > 20.0 { 20.0 } else { size };
    let power = exp2::<T, f32>(bounded * (-2.0 * LOG2_E));
    let far = ((1.0 - power) / (1.0 + power)).copysign(x);
    if size < NEAR { series } else { far }
}
