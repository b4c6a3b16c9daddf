//! Activations, applied to values in place.

use super::element::Element;
use super::math::{erf, exp2};
use super::simd::Target;
use crate::ops::activation::Activation;

/// Applies an activation in place; values will be narrowed to `E`.
#[inline(always)]
pub(crate) fn activate<T: Target, E: Element>(activation: Activation, values: &mut [f32]) {
    // A loop a case: the choice is made once, and each loop vectorises.
    match activation {
        Activation::None => {}
        Activation::Gelu => each(values, gelu::<T, E>),
        Activation::GeluTanh => each(values, gelu_tanh::<T, E>),
        Activation::Silu => each(values, |x| x * sigmoid::<T, E>(x)),
        Activation::Tanh => each(values, |x| T::mul_add(2.0, sigmoid::<T, E>(2.0 * x), -1.0)),
        Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
    }
}

#[inline(always)]
fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
    for value in values {
        *value = function(*value);
    }
}

#[inline(always)]
fn gelu<T: Target, E: Element>(x: f32) -> f32 {
    let half = 0.5 * x;
    T::mul_add(half, erf::<T, E>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// `x / 2 * (1 + tanh(w))` is `x * sigmoid(2 w)`.
#[inline(always)]
fn gelu_tanh<T: Target, E: Element>(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = T::mul_add(0.044_715 * x * x, x, x);
    x * sigmoid::<T, E>(2.0 * SQRT_2_OVER_PI * inner)
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<T: Target, E: Element>(x: f32) -> f32 {
    // Beyond, the exponential would overflow where the result is 0 anyway.
    let x = if x < -80.0 { -80.0 } else { x };
    1.0 / (1.0 + exp2::<T, E>(x * -std::f32::consts::LOG2_E))
}
