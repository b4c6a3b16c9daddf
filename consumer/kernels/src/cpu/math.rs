//! `exp2` and `erf` without branches, so that loops over them vectorise; and sums over lanes.
//!
//! Both are Chebyshev fits made for this file with 40 digits; the errors stated are measured by the tests.

use super::element::Element;
use super::simd::Target;

/// Partial sums kept side by side: two AVX-512 registers, so that an addition need not wait for the last.
pub(crate) const LANES: usize = 32;

/// `2^x` for `x` up to 127, 0 below -126. NaN stays NaN. Its relative error is at most 3e-7 in f32, and 1.1e-4 for
/// what is rounded to bf16 next, a twentieth of that rounding.
///
/// `x = n + r` with `|r| <= 1/2`; a polynomial gives `2^r`, and `n` goes into the exponent's bits. Adding
/// 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
#[inline(always)]
pub(crate) fn exp2<T: Target, E: Element>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const TERMS: [f32; 6] = [
        1.339_086_3e-3,
        9.676_032e-3,
        5.550_357e-2,
        0.240_221_07,
        std::f32::consts::LN_2,
        1.000_000_1,
    ];
    const TERMS_BF16: [f32; 4] = [5.583_828_3e-2, 0.242_639_48, 0.693_136_75, 0.999_924_54];
    let rounded = x + ROUND;
    let r = x - (rounded - ROUND);
    let power = if E::HAS_PAIRS {
        polynomial::<T, 4>(r, &TERMS_BF16)
    } else {
        polynomial::<T, 6>(r, &TERMS)
    };
    let power = power * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -126.0 { 0.0 } else { power }
}

/// The error function, exactly -1 and 1 far from zero. NaN stays NaN. Its absolute error is at most 3e-7 in f32, and
/// 3e-5 for what is rounded to bf16 next.
///
/// `erf(z) / z` is a smooth function of `z * z`: one polynomial, on `[0, 16]` or `[0, 9]`, taken in `u` from
/// -1 to 1 where its terms stay small.
#[inline(always)]
pub(crate) fn erf<T: Target, E: Element>(z: f32) -> f32 {
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
    const TERMS_BF16: [f32; 9] = [
        7.950_804e-3,
        -1.854_904_7e-2,
        2.222_952_8e-2,
        -3.871_329_5e-2,
        7.307_977e-2,
        -0.111_563_05,
        0.157_455_5,
        -0.228_687_1,
        0.470_131_8,
    ];
    let limit = if E::HAS_PAIRS { 3.0 } else { 4.0 };
    let z = if z > limit { limit } else { z };
    let z = if z < -limit { -limit } else { z };
    let u = T::mul_add(z * z, 2.0 / (limit * limit), -1.0);
    let slope = if E::HAS_PAIRS {
        polynomial::<T, 9>(u, &TERMS_BF16)
    } else {
        polynomial::<T, 17>(u, &TERMS)
    };
    let erf = slope * z;
    let erf = if erf > 1.0 { 1.0 } else { erf };
    if erf < -1.0 { -1.0 } else { erf }
}

/// Horner's rule, the highest term first.
#[inline(always)]
fn polynomial<T: Target, const N: usize>(x: f32, terms: &[f32; N]) -> f32 {
    let mut sum = terms[0];
    for term in &terms[1..] {
        sum = T::mul_add(sum, x, *term);
    }
    sum
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

/// The largest value of a row of whole lanes. NaN may be passed over.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, _) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = larger(lanes[lane], lanes[lane + half]);
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
