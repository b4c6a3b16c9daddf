//! Exponential and logarithm by additions and multiplications alone: the bits are equal on every processor, which those
//! of the C library's functions are not.

/// Below this an exponential is taken for 0; `exp(-87)` is the last whose bits are those of a normal number.
const EXP_MIN: f32 = -87.0;
/// ln 2 in two parts, so that whole multiples of the first are exact (W. Cody and W. Waite, 1980).
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 * 2^23: a small number that is added to it loses its fraction, rounded to the nearest.
const ROUNDING: f32 = 12_582_912.0;

/// `exp(x)` of `x <= 0` within three units of the last bit, and 0 below [`EXP_MIN`]. Written without branches, so that
/// loops over it are vectorized.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = if x > EXP_MIN { x } else { EXP_MIN };
    let powers = clamped * std::f32::consts::LOG2_E + ROUNDING;
    let whole = powers - ROUNDING;
    let rest = (clamped - whole * LN_2_HIGH) - whole * LN_2_LOW;
    // Cephes' polynomial of exp on [-ln 2 / 2, ln 2 / 2].
    let mut sum = 1.987_569_1e-4;
    sum = sum * rest + 1.398_199_9e-3;
    sum = sum * rest + 8.333_452e-3;
    sum = sum * rest + 4.166_579_6e-2;
    sum = sum * rest + 1.666_666_5e-1;
    sum = sum * rest + 5e-1;
    let fraction = sum * (rest * rest) + rest + 1.0;
    // The low bits of `powers` are the whole number, -126 to 0: with 127 it is the exponent of a power of two.
    let scale = f32::from_bits(powers.to_bits().wrapping_add(127) << 23);
    if x > EXP_MIN { fraction * scale } else { 0.0 }
}

/// `ln(x)` of a normal positive number.
pub(super) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // Mantissas of [sqrt(1/2), sqrt(2)): the series below converges fastest around 1.
    let shifted = bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = shifted as i64 >> 52;
    let mantissa = f64::from_bits(bits.wrapping_sub((exponent as u64) << 52));
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    // 2 artanh(ratio): the first term left out is below 1e-18.
    let mut sum = 0.0;
    for odd in (0..12).rev() {
        sum = sum * square + 1.0 / f64::from(2 * odd + 1);
    }
    2.0 * ratio * sum + exponent as f64 * std::f64::consts::LN_2
}

/// Lanes of [`sum_of`]: enough for the widest vectors, and a fixed order of the additions.
const LANES: usize = 8;

/// The sum of `of` each number, in an order that depends on their count alone.
#[inline]
pub(super) fn sum_of(numbers: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let mut chunks = numbers.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(of(number));
        }
    }
    for (lane, &number) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f64::from(of(number));
    }
    lanes.iter().sum()
}

/// The sum of `exp(number - largest)` of each number.
pub(super) fn sum_of_exp(numbers: &[f32], largest: f32) -> f64 {
    /// Exponentials are written here before they are added up: either loop is vectorized, both in one are not.
    const BLOCK: usize = 256;
    let mut exponentials = [0.0f32; BLOCK];
    let mut sum = 0.0;
    for block in numbers.chunks(BLOCK) {
        for (exponential, &number) in exponentials.iter_mut().zip(block) {
            *exponential = exp(number - largest);
        }
        sum += sum_of(&exponentials[..block.len()], |exponential| exponential);
    }
    sum
}

/// The largest of numbers of which none is NaN; negative infinity of none.
#[inline]
pub(super) fn largest(numbers: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 2 * LANES];
    let mut chunks = numbers.chunks_exact(lanes.len());
    for chunk in &mut chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, number);
        }
    }
    lanes.iter().chain(chunks.remainder()).copied().fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]

    use super::*;

    #[test]
    fn exponentials_are_right_within_three_units_of_the_last_bit() {
        for at in 0..200_000 {
            let x = at as f32 * -87.2 / 200_000.0;
            let right = f64::from(x).exp();
            if x > EXP_MIN {
                let off = (f64::from(exp(x)) - right).abs() / right;
                assert!(off < 3.0 * f64::from(f32::EPSILON) / 2.0, "exp({x}) is off by {off}");
            } else {
                assert_eq!(exp(x), 0.0);
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
    }

    #[test]
    fn exponentials_do_not_fall_as_their_argument_grows() {
        let mut before = 0.0;
        for at in (0..1_000_000).rev() {
            let now = exp(at as f32 * -8.8e-5);
            assert!(now >= before && now <= 1.0, "at {at}");
            before = now;
        }
    }

    #[test]
    fn logarithms_are_right() {
        let mut x = 1e-3;
        while x < 1e7 {
            let ours = ln(x);
            let right = f64::ln(x);
            assert!(
                (ours - right).abs() <= 4e-16 * right.abs().max(1.0),
                "ln({x}) = {ours}, not {right}"
            );
            x *= 1.000_37;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn sums_and_largest_numbers_see_every_number() {
        for count in 0..40 {
            let numbers: Vec<f32> = (0..count).map(|at| -(at as f32)).collect();
            assert_eq!(sum_of(&numbers, |x| x), -f64::from(count * (count - 1).max(0)) / 2.0);
            let want = if count == 0 { f32::NEG_INFINITY } else { 0.0 };
            assert_eq!(largest(&numbers), want);
            let backwards: Vec<f32> = numbers.iter().rev().copied().collect();
            assert_eq!(largest(&backwards), want);
        }
    }
}
