//! `exp` and `erf` without branches, so that loops over them vectorise; and sums over lanes.
//!
//! Both are Chebyshev fits made for this file with 40 digits; the errors stated are measured by the tests.

use crate::simd::Target;

/// Partial sums kept side by side: two AVX-512 registers, so that an addition need not wait for the last.
pub(crate) const LANES: usize = 32;

/// `exp(x)` for `-87 <= x <= 88`, 0 to 1.7e-38 below, relative error at most 2e-7. NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; a polynomial of degree 6 gives `exp(r)`, and `n` goes into the
/// exponent's bits. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
#[inline(always)]
pub(crate) fn exp<T: Target>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has few bits, so that `n` times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TERMS: [f32; 7] =
        [1.394_110_8e-3, 8.375_126e-3, 4.166_635e-2, 0.166_664_15, 0.5, 1.0, 1.0];
    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = T::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = T::mul_add(n, -LN2_LOW, T::mul_add(n, -LN2_HIGH, x));
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = T::mul_add(sum, r, *term);
    }
    sum * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

/// The error function, absolute error at most 3e-7, exactly -1 and 1 beyond 4. NaN stays NaN.
///
/// `erf(z) / z` is a smooth function of `z * z`: one polynomial of degree 16 on `[0, 16]`, taken in
/// `u = z * z / 8 - 1` where its terms stay small.
#[inline(always)]
pub(crate) fn erf<T: Target>(z: f32) -> f32 {
    const TERMS: [f32; 17] = [
        5.720_870_8e-4,
        -1.370_520_5e-3,
        7.137_556e-4,
        -1.085_529e-3,
        5.419_890_2e-3,
        -1.007_305_8e-2,
        1.404_101_3e-2,
        -2.167_232e-2,
        3.315_493e-2,
        -4.601_033e-2,
        5.987_173e-2,
        -7.468_837e-2,
        9.021_009e-2,
        -0.107_713_28,
        0.131_675_1,
        -0.176_576_18,
        0.353_531,
    ];
    let z = if z > 4.0 { 4.0 } else { z };
    let z = if z < -4.0 { -4.0 } else { z };
    let u = T::mul_add(z * z, 0.125, -1.0);
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = T::mul_add(sum, u, *term);
    }
    let erf = sum * z;
    let erf = if erf > 1.0 { 1.0 } else { erf };
    if erf < -1.0 { -1.0 } else { erf }
}

/// `x * Phi(x)`, the exact (erf) GELU.
#[inline(always)]
pub(crate) fn gelu<T: Target>(x: f32) -> f32 {
    let half = 0.5 * x;
    T::mul_add(half, erf::<T>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// The sum of all lanes, halved again and again: five steps instead of a chain of thirty-two.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest lane. NaN may be passed over.
#[inline(always)]
pub(crate) fn largest_lane(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            let other = lanes[lane + half];
            lanes[lane] = if other > lanes[lane] { other } else { lanes[lane] };
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of a row.
#[inline(always)]
pub(crate) fn sum(row: &[f32]) -> f32 {
    let (chunks, tail) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    sum_lanes(lanes) + tail.iter().sum::<f32>()
}

/// The sum of the squares of a row's distances to `centre`.
#[inline(always)]
pub(crate) fn sum_of_squares<T: Target>(row: &[f32], centre: f32) -> f32 {
    let (chunks, tail) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let distance = value - centre;
            *lane = T::mul_add(distance, distance, *lane);
        }
    }
    let mut tail_sum = 0.0;
    for value in tail {
        tail_sum += (value - centre) * (value - centre);
    }
    sum_lanes(lanes) + tail_sum
}
