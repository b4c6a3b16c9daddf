//! Which number type the processor computes faster in: measured, since having an instruction does not make it fast.
//!
//! Matrix products of bf16 run at twice the speed of f32's on AMD's Zen 4, and at half of it on Intel's Emerald Rapids,
//! whose own way to multiply bf16 is AMX.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};

use super::linear::{linear, pack};
use super::parallel::alone;
use super::simd::multiplies_bf16;
use crate::ops::activation::Activation;
use crate::ops::linear::{Linear, Operands, Parameters};

/// Runs of each; the best one counts, since other processes only ever slow one down. All take some milliseconds.
const RUNS: usize = 12;
/// `[tokens, in, out]` of the layer that is timed.
const SHAPE: (usize, usize, usize) = (48, 384, 384);

/// Whether bf16 is at least a fifth faster than f32 on this processor: less is not worth its rounding.
pub fn prefers_bf16() -> bool {
    static PREFERS: OnceLock<bool> = OnceLock::new();
    *PREFERS.get_or_init(|| multiplies_bf16() && measure().unwrap_or(false))
}

fn measure() -> Result<bool> {
    let single = Timed::new(DType::F32)?;
    let half = Timed::new(DType::BF16)?;
    let mut single_best = Duration::MAX;
    let mut half_best = Duration::MAX;
    // In turns, so that both meet one clock.
    for _ in 0..RUNS {
        single_best = single_best.min(single.run()?);
        half_best = half_best.min(half.run()?);
    }
    Ok(half_best * 6 < single_best * 5)
}

struct Timed {
    layer: Linear,
    x: Tensor,
    out: Tensor,
}

impl Timed {
    fn new(dtype: DType) -> Result<Self> {
        let (tokens, inputs, outputs) = SHAPE;
        let ones = |rows, columns| Tensor::ones((rows, columns), dtype, &Device::Cpu);
        let weight = pack(&ones(outputs, inputs)?, dtype)?;
        let parameters = Parameters { inputs, outputs, bias: None };
        let layer = Linear::of(weight, parameters, Activation::None, dtype);
        Ok(Self { layer, x: ones(tokens, inputs)?, out: ones(tokens, outputs)? })
    }

    fn run(&self) -> Result<Duration> {
        let started = Instant::now();
        alone(|| linear(&self.layer, Operands { x: &self.x, out: &self.out }))?;
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_the_instruction_does_not_prefer_bf16() {
        assert!(measure().is_ok());
        assert!(multiplies_bf16() || !prefers_bf16());
    }
}
