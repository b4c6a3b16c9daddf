//! Rows of inputs, quantized by block.

use crate::cpu::element::Element;
use crate::cpu::simd::{Isa, Target, dispatched};
use crate::ops::blocks::BLOCK;

/// The bits of a number without its sign.
const SIZE: u32 = 0x7FFF_FFFF;
/// The bits of infinity.
const INFINITE: u32 = 0x7F80_0000;
/// Below it a step would be subnormal and its inverse infinite: such a block is zeros.
const LARGEST_MIN: f32 = 127.0 * f32::MIN_POSITIVE;

/// A row's values along the inputs of a block, with what a sum over them needs.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(in crate::cpu::linear) struct Inputs {
    /// `round(x / scale)`.
    pub(super) quants: [i8; BLOCK],
    /// The value of one step; NaN where a value is not finite.
    pub(super) scale: f32,
    /// The sum of the quants, by the scale.
    pub(super) sum: f32,
    /// Sums of bytes without a sign, 128 more than the weight's quants, begin at this: of the block.
    pub(super) offset: i32,
    /// As `offset`, of each half.
    pub(super) offsets: [i32; 2],
}

dispatched! {
    /// Quantizes rows end to end, whole blocks each.
    fn quantize_rows<E>(x: &[E], into: &mut [Inputs]) = quantize_all;
}

pub(super) fn quantize<E: Element>(isa: Isa, x: &[E], into: &mut [Inputs]) {
    quantize_rows::<E>(isa, x, into);
}

#[inline(always)]
fn quantize_all<T: Target, E: Element>(x: &[E], into: &mut [Inputs]) {
    for (x, into) in x.chunks_exact(BLOCK).zip(into) {
        quantize_block(x, into);
    }
}

#[inline(always)]
fn quantize_block<E: Element>(x: &[E], into: &mut Inputs) {
    let mut values = [0.0; BLOCK];
    for (value, x) in values.iter_mut().zip(x) {
        *value = x.widen();
    }
    let (largest, poison) = extent(&values);
    let flushed = largest < LARGEST_MIN;
    let inverse = if flushed { 0.0 } else { 127.0 / largest };
    let scale = if flushed { 0.0 } else { largest / 127.0 } + poison;
    let mut rounded = [0; BLOCK];
    for (rounded, value) in rounded.iter_mut().zip(values) {
        // Not fused, so that every instruction set comes to the same integer.
        *rounded = i32::from(nearest(value * inverse) as i8);
    }
    let mut sums = [0; 2];
    for (sum, half) in sums.iter_mut().zip(rounded.chunks_exact(BLOCK / 2)) {
        *sum = half.iter().sum();
    }
    for (quant, rounded) in into.quants.iter_mut().zip(rounded) {
        *quant = rounded as i8;
    }
    let whole = sums[0] + sums[1];
    into.scale = scale;
    into.sum = scale * whole as f32;
    into.offset = -128 * whole;
    into.offsets = [-128 * sums[0], -128 * sums[1]];
}

/// The greatest size of the values; and zero, or NaN where one is not finite.
#[inline(always)]
fn extent(values: &[f32; BLOCK]) -> (f32, f32) {
    // Sizes are in the order of their bits, with what is not finite above all others. Of integers the compiler finds
    // the greatest in registers, which of floats it may not.
    let largest = values.iter().fold(0, |largest, value| largest.max(value.to_bits() & SIZE));
    let poison = if largest < INFINITE { 0.0 } else { f32::NAN };
    (f32::from_bits(largest), poison)
}

/// To the nearest integer, ties to even, of a value between -2^22 and 2^22: by what adding 1.5 * 2^23 leaves of the
/// fraction. Any other value becomes something.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed()
}
