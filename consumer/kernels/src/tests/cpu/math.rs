//! `exp2`, `erf` and the activations: the errors that their documentation states.

use half::bf16;

use crate::cpu::activation::activate;
use crate::cpu::element::Element;
use crate::cpu::math::{erf, exp2};
use crate::cpu::simd::{Isa, Portable, Target, dispatched};
use crate::ops::activation::{Activation, erf_reference};

dispatched! {
    fn exp2_all<E>(values: &mut [f32]) = exp2_loop;
}
#[inline(always)]
fn exp2_loop<T: Target, E: Element>(values: &mut [f32]) {
    for value in values {
        *value = exp2::<T, E>(*value);
    }
}

dispatched! {
    fn erf_all<E>(values: &mut [f32]) = erf_loop;
}
#[inline(always)]
fn erf_loop<T: Target, E: Element>(values: &mut [f32]) {
    for value in values {
        *value = erf::<T, E>(*value);
    }
}

dispatched! {
    fn activate_all<E>(activation: Activation, values: &mut [f32]) = activate;
}

/// 200,001 points from `low` to `high`.
fn points(low: f32, high: f32) -> Vec<f32> {
    (0..=200_000).map(|step| low + (high - low) * step as f32 / 200_000.0).collect()
}

/// Runs `function` on the points with every instruction set; `wrong` says what is wrong with a result.
fn check(points: &[f32], function: fn(Isa, &mut [f32]), wrong: impl Fn(f64, f64) -> Option<f64>) {
    Isa::each(|| {
        let mut results = points.to_vec();
        function(Isa::best(), &mut results);
        for (x, y) in points.iter().zip(results) {
            if let Some(error) = wrong(f64::from(*x), f64::from(y)) {
                panic!("at {x} it is off by {error:e}");
            }
        }
    });
}

#[test]
fn exp2_keeps_its_stated_error() {
    let relative = |most: f64| {
        move |x: f64, y: f64| Some(y / x.exp2() - 1.0).filter(|error| error.abs() > most)
    };
    check(&points(-126.0, 127.0), exp2_all::<f32>, relative(3e-7));
    check(&points(-126.0, 127.0), exp2_all::<bf16>, relative(1.1e-4));
}

#[test]
fn erf_keeps_its_stated_error() {
    let absolute = |most: f64| {
        move |x: f64, y: f64| Some(y - erf_reference(x)).filter(|error| error.abs() > most)
    };
    check(&points(-6.0, 6.0), erf_all::<f32>, absolute(3e-7));
    check(&points(-6.0, 6.0), erf_all::<bf16>, absolute(3e-5));
}

#[test]
fn activations_keep_their_stated_errors() {
    // Errors of f32 and for bf16; of all but tanh they are multiplied with the input.
    let stated = [
        (Activation::Gelu, [3e-7, 3e-5]),
        (Activation::GeluTanh, [4e-7, 2e-4]),
        (Activation::Silu, [4e-7, 2e-4]),
        (Activation::Tanh, [4e-7, 2e-4]),
        (Activation::Relu, [0.0, 0.0]),
    ];
    for (activation, errors) in stated {
        let runs = [activate_all::<f32>, activate_all::<bf16>];
        for (run, most) in runs.into_iter().zip(errors) {
            Isa::each(|| {
                let points = points(-20.0, 20.0);
                let mut results = points.clone();
                run(Isa::best(), activation, &mut results);
                for (x, y) in points.iter().zip(results) {
                    let error = f64::from(y) - activation.reference(f64::from(*x));
                    let most = most
                        * if activation == Activation::Tanh { 1.0 } else { f64::from(x.abs()) };
                    assert!(error.abs() <= most + 1e-9, "{activation:?}({x}) is off by {error:e}");
                }
            });
        }
    }
}

#[test]
fn extremes_are_exact() {
    assert_eq!(erf::<Portable, f32>(f32::INFINITY), 1.0);
    assert_eq!(erf::<Portable, bf16>(-30.0), -1.0);
    assert_eq!(erf::<Portable, f32>(0.0), 0.0);
    assert_eq!(exp2::<Portable, f32>(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp2::<Portable, bf16>(-127.0), 0.0);
    for (activation, at_minus_100, at_100) in [
        (Activation::Gelu, 0.0, 100.0),
        (Activation::GeluTanh, 0.0, 100.0),
        (Activation::Silu, 0.0, 100.0),
        (Activation::Tanh, -1.0, 1.0),
    ] {
        let mut values = [-100.0, 100.0];
        activate::<Portable, f32>(activation, &mut values);
        assert!((values[0] - at_minus_100).abs() < 1e-30 && values[1] == at_100, "{activation:?}");
    }
}

#[test]
fn a_nan_stays_one() {
    assert!(exp2::<Portable, f32>(f32::NAN).is_nan());
    assert!(exp2::<Portable, bf16>(f32::NAN).is_nan());
    assert!(erf::<Portable, f32>(f32::NAN).is_nan());
    assert!(bf16::narrow(f32::NAN).is_nan());
    // One whose mark lies in the bits that are cut off.
    assert!(bf16::narrow(f32::from_bits(0x7F80_0001)).is_nan());
}

#[test]
fn narrowing_rounds_to_the_nearest_and_ties_to_even() {
    for bits in (0..=u32::MAX).step_by(65_521) {
        let value = f32::from_bits(bits);
        let ours = bf16::narrow(value);
        let theirs = bf16::from_f32(value);
        assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        assert!(value.is_nan() || ours.widen() == theirs.to_f32());
    }
}
