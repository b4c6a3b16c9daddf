//! Every CUDA kernel, run on the processor by the executor of `cuda/executor`, against its twin and against f64.

mod attention;
mod elementwise;
mod executor;
mod hopper;
mod mutations;
mod planted;
mod program;
mod rows;
mod whole_rows;

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use self::executor::{At, Executor, Memory, rounded};
use self::program::Program;
use super::{noise, tensor, values};
use crate::launch::{Half, Launch};

/// Random shapes of each kernel.
const CASES: u32 = 200;

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

/// Numbers that a number type holds exactly, as a tensor in which the twin computes: in f32 where it has no f16.
fn operand(half: Half, seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let dtype = if half == Half::Bf16 { DType::BF16 } else { DType::F16 };
    let rounded = tensor(&noise(seed, shape.iter().product()), shape).to_dtype(dtype).unwrap();
    let twin = if half == Half::Bf16 { DType::BF16 } else { DType::F32 };
    let values = values(&rounded);
    (rounded.to_dtype(twin).unwrap(), values)
}

/// Runs a launch that has something to do.
fn run(memory: &mut Memory, launch: Option<Launch<At>>) {
    if let Some(launch) = launch {
        Executor::with(|executor| executor.run(&launch, memory))
            .unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// No value further off than `tolerance`, relative to the expected one's size where that exceeds 1.
fn assert_near(
    actual: &[f32],
    expected: impl ExactSizeIterator<Item = f64>,
    tolerance: f64,
    of: &str,
) {
    assert_eq!(actual.len(), expected.len(), "{of}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let distance = (f64::from(*actual) - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(1.0),
            "value {index}: {actual}, {of} {expected}"
        );
    }
}

/// Near the exact values, and near what the processor's own side gives.
fn assert_agrees(actual: &[f32], exact: &[f64], twin: &Tensor, tolerance: f64) {
    assert_near(actual, exact.iter().copied(), tolerance, "exact");
    assert_near(
        actual,
        values(twin).iter().map(|value| f64::from(*value)),
        2.0 * tolerance,
        "twin",
    );
}
