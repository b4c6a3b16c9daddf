//! `exp`, `erf` and GELU: the errors that their documentation states.

use crate::math::{erf, exp, gelu};
use crate::simd::{Portable, Target, dispatched};

/// The error function in f64: its Taylor series, which converges everywhere and is exact to 1e-9 up to 4.5.
fn erf_reference(z: f64) -> f64 {
    if z.abs() > 4.5 {
        return z.signum();
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

dispatched! {
    fn exp_all(values: &mut [f32]) = exp_loop;
}
#[inline(always)]
fn exp_loop<T: Target>(values: &mut [f32]) {
    for value in values {
        *value = exp::<T>(*value);
    }
}

dispatched! {
    fn erf_all(values: &mut [f32]) = erf_loop;
}
#[inline(always)]
fn erf_loop<T: Target>(values: &mut [f32]) {
    for value in values {
        *value = erf::<T>(*value);
    }
}

/// 200,001 points from `low` to `high`.
fn points(low: f32, high: f32) -> Vec<f32> {
    (0..=200_000).map(|step| low + (high - low) * step as f32 / 200_000.0).collect()
}

#[test]
fn exp_keeps_its_stated_error() {
    crate::simd::Isa::each(|| {
        let points = points(-87.0, 88.0);
        let mut results = points.clone();
        exp_all(crate::simd::Isa::best(), &mut results);
        for (x, y) in points.iter().zip(results) {
            let error = f64::from(y) / f64::from(*x).exp() - 1.0;
            assert!(error.abs() <= 2e-7, "exp({x}) is off by {error:e}");
        }
    });
}

#[test]
fn erf_keeps_its_stated_error() {
    crate::simd::Isa::each(|| {
        let points = points(-6.0, 6.0);
        let mut results = points.clone();
        erf_all(crate::simd::Isa::best(), &mut results);
        for (z, y) in points.iter().zip(results) {
            let error = f64::from(y) - erf_reference(f64::from(*z));
            assert!(error.abs() <= 3e-7, "erf({z}) is off by {error:e}");
        }
    });
}

#[test]
fn extremes_are_exact() {
    assert_eq!(erf::<Portable>(f32::INFINITY), 1.0);
    assert_eq!(erf::<Portable>(-30.0), -1.0);
    assert_eq!(erf::<Portable>(0.0), 0.0);
    assert_eq!(exp::<Portable>(0.0), 1.0);
    assert!(exp::<Portable>(f32::NEG_INFINITY) < 2e-38);
    assert_eq!(gelu::<Portable>(100.0), 100.0);
    assert_eq!(gelu::<Portable>(-100.0), 0.0);
}

#[test]
fn a_nan_stays_one() {
    assert!(exp::<Portable>(f32::NAN).is_nan());
    assert!(erf::<Portable>(f32::NAN).is_nan());
}

/// The exact GELU in f64, for the tests of `linear`.
pub(super) fn gelu_reference(x: f64) -> f64 {
    0.5 * x * (1.0 + erf_reference(x * std::f64::consts::FRAC_1_SQRT_2))
}
