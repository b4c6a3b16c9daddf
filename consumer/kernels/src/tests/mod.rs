//! Every operation against its formula in f64, on every instruction set that the processor has.
// Some results are exact, and compared so.
#![allow(clippy::unwrap_used, clippy::float_cmp)]

mod attention;
mod device;
mod gates;
mod linear;
mod math;
mod norms;
mod pool;
mod quantized;
mod refusals;
mod simd;
mod threads;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use crate::{CuSeqlens, LayerNorm};

/// Lengths of up to five sequences, empty ones among them.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![Just(0), Just(1), 2..70_usize], 1..6)
}

fn cu_seqlens(lengths: &[usize]) -> CuSeqlens {
    lengths.iter().copied().collect()
}

/// `count` values between -2 and 2 that only `seed` decides.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        // xorshift64*, its upper 24 bits.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// A tensor of noise, with its values.
fn noisy(seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    noisy_in(DType::F32, seed, shape)
}

/// The same in a number type, with the values that it can hold.
fn noisy_in(dtype: DType, seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let values = noise(seed, shape.iter().product());
    let tensor = tensor(&values, shape).to_dtype(dtype).unwrap();
    let values = self::values(&tensor);
    (tensor, values)
}

/// Both number types that operations compute in, each with the error of rounding a result to it, doubled.
const DTYPES: [(DType, f64); 2] = [(DType::F32, 1.2e-7), (DType::BF16, 8e-3)];

fn layer_norm(seed: u64, hidden: usize) -> LayerNorm {
    LayerNorm { scale: noisy(seed, &[hidden]).0, shift: noisy(seed + 1, &[hidden]).0, eps: 1e-5 }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `LayerNorm(row)` in f64.
fn layer_norm_reference(row: &[f64], norm: &LayerNorm) -> Vec<f64> {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let inverse = (variance + f64::from(norm.eps)).sqrt().recip();
    let (scale, shift) = (values(&norm.scale), values(&norm.shift));
    let parameters = scale.iter().zip(&shift);
    row.iter()
        .zip(parameters)
        .map(|(x, (a, b))| (x - mean) * inverse * f64::from(*a) + f64::from(*b))
        .collect()
}

/// No value further off than `tolerance`, relative to the reference's size where that exceeds 1.
fn assert_close(actual: &Tensor, expected: &[f64], tolerance: f64) {
    let actual = values(actual);
    assert_eq!(actual.len(), expected.len());
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let distance = (f64::from(*actual) - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(1.0),
            "value {index}: {actual}, expected {expected}"
        );
    }
}
