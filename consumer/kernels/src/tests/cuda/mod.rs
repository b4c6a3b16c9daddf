//! Every CUDA kernel, run on the processor by the executor of `cuda/executor`, against the CPU implementation and
//! against f64.

mod add_layer_norm;
mod bias_activation;
mod embed_layer_norm;
mod executor;
mod feed_forward;
mod gate;
mod layer_norm;
mod linear_layer_norm;
mod linear_sm90a;
mod mutations;
mod planted;
mod pool_normalize;
mod program;
mod rotary;
mod sources;
mod varlen_attention;

use candle_core::{DType, Shape, Tensor};
use proptest::prelude::*;

use self::executor::{At, Executor, Memory, rounded};
use self::program::Program;
use super::{ACTIVATIONS, doubles, noise, tensor, values};
use crate::Activation;
use crate::cuda::launch::{Half, Launch};

/// Random shapes of each kernel.
const CASES: u32 = 200;

/// The error of an activation of the CPU implementation besides rounding: 2e-4 of what goes in, and more of the halves.
const CPU_ACTIVATION: f64 = 1e-3;

fn activations() -> impl Strategy<Value = Activation> {
    prop::sample::select(&ACTIVATIONS[..])
}

/// Rows of a few values, of whole vectors, and of more than a warp has in one.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![2..40_usize, (1..48_usize).prop_map(|vectors| 8 * vectors), 250..530_usize]
}

/// Bytes past a multiple of 256 at which operands begin: any whole value, most often none.
fn offsets() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => (1..8_u32).prop_map(|values| 2 * values)]
}

/// A weight whose matrix products with noise are of the size of noise.
fn weight(half: Half, seed: u64, [outputs, inputs]: [usize; 2]) -> Vec<f32> {
    let size = (inputs as f32).sqrt();
    noise(seed, outputs * inputs).iter().map(|value| rounded(half, value / size)).collect()
}

/// Both number types of the kernels.
fn halves() -> impl Strategy<Value = Half> {
    prop_oneof![Just(Half::Bf16), Just(Half::F16)]
}

/// How far a result that is rounded once may lie from the exact one, relative to its size or 1.
fn rounding(half: Half) -> f64 {
    match half {
        Half::Bf16 => 8e-3,
        Half::F16 => 1e-3,
    }
}

/// Numbers that a number type holds exactly, as a tensor of the CPU implementation's number type: f32 in place of f16.
fn operand(half: Half, seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let dtype = if half == Half::Bf16 { DType::BF16 } else { DType::F16 };
    let rounded =
        tensor(&noise(seed, Shape::from(shape).elem_count()), shape).to_dtype(dtype).unwrap();
    let on_cpu = if half == Half::Bf16 { DType::BF16 } else { DType::F32 };
    let values = values(&rounded);
    (rounded.to_dtype(on_cpu).unwrap(), values)
}

/// Runs a launch that has something to do.
fn run(memory: &mut Memory, launch: Option<Launch<At>>) {
    if let Some(launch) = launch {
        Executor::with(|executor| executor.run(&launch, memory))
            .unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// No value further off than `tolerance`, relative to the expected one's size where that exceeds 1.
fn assert_near(actual: &[f32], expected: &[f64], tolerance: f64, of: &str) {
    assert_eq!(actual.len(), expected.len(), "{of}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let distance = (f64::from(*actual) - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(1.0),
            "value {index}: {actual}, {of} {expected}"
        );
    }
}

/// Near the exact values, and near what the CPU implementation gives.
fn assert_agrees(actual: &[f32], exact: &[f64], on_cpu: &Tensor, tolerance: f64) {
    assert_near(actual, exact, tolerance, "exact");
    assert_near(actual, &doubles(&values(on_cpu)), 2.0 * tolerance, "CPU implementation");
}
