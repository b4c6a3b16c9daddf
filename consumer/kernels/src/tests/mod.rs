//! Every operation against its float64 reference: on the processor with every instruction set that it has, and the CUDA
//! kernels on the executor.
// Some results are exact, and compared so.
#![allow(clippy::unwrap_used, clippy::float_cmp)]

mod cpu;
mod cuda;
mod ops;

use candle_core::{DType, Device, Shape, Tensor};
use proptest::prelude::*;

use crate::ops::activation::Activation;
use crate::ops::cu_seqlens::CuSeqlens;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::mask::Mask;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::varlen_attention::VarlenAttention;

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

/// A tensor of noise in a number type, with the values that it can hold.
fn noisy_in(dtype: DType, seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let values = noise(seed, Shape::from(shape).elem_count());
    let tensor = tensor(&values, shape).to_dtype(dtype).unwrap();
    let values = self::values(&tensor);
    (tensor, values)
}

/// Both number types that operations compute in, each with the error of rounding a result to it, doubled.
const DTYPES: [(DType, f64); 2] = [(DType::F32, 1.2e-7), (DType::BF16, 8e-3)];

fn layer_norm(seed: u64, hidden: usize) -> LayerNorm {
    LayerNorm { scale: noisy(seed, &[hidden]).0, shift: noisy(seed + 1, &[hidden]).0, eps: 1e-5 }
}

fn rms_norm(seed: u64, width: usize) -> RmsNorm {
    RmsNorm { weight: noisy(seed, &[width]).0, eps: 1e-5 }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn masks() -> impl Strategy<Value = Mask> {
    prop_oneof![Just(Mask::Bidirectional), Just(Mask::Causal), (0..50_usize).prop_map(Mask::Window)]
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Tanh,
    Activation::Relu,
];

/// Attention of one run.
#[derive(Clone, Copy)]
struct Setting {
    heads: usize,
    dim: usize,
    mask: Mask,
    scale: Option<f32>,
    /// Whether distances are biased.
    biased: bool,
}

impl Setting {
    fn plain(heads: usize, dim: usize) -> Self {
        Self { heads, dim, mask: Mask::Bidirectional, scale: None, biased: false }
    }

    /// The operation on packed sequences; `distances` are its bias where the setting has one.
    fn op<'a>(self, cu_seqlens: &'a CuSeqlens, distances: &'a Tensor) -> VarlenAttention<'a> {
        VarlenAttention {
            mask: self.mask,
            scale: self.scale,
            distance_bias: self.biased.then_some(distances),
            ..VarlenAttention::new(cu_seqlens, self.heads)
        }
    }
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
