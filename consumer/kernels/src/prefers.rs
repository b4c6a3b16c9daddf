//! Which number type a processor computes faster in: measured, since having an instruction does not make it fast.
//!
//! Products of bf16 run at twice the speed of f32's on AMD's Zen 4, and at half of it on Intel's Emerald Rapids, whose own
//! way to multiply bf16 is AMX.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

use crate::parallel::alone;
use crate::simd::multiplies_bf16;
use crate::{Activation, KernelError, Linear};

/// Runs of each; the best one counts, since others on the machine only ever slow one down. All take some milliseconds.
const RUNS: usize = 12;
/// `[tokens, in, out]` of what is timed.
const SHAPE: (usize, usize, usize) = (48, 384, 384);

/// Whether bf16 is at least a fifth faster than f32 on this processor: less is not worth its rounding.
pub fn prefers_bf16() -> bool {
    static PREFERS: OnceLock<bool> = OnceLock::new();
    *PREFERS.get_or_init(|| multiplies_bf16() && measure().unwrap_or(false))
}

fn measure() -> Result<bool, KernelError> {
    let (single, half) = (Timed::new(DType::F32)?, Timed::new(DType::BF16)?);
    let (mut single_best, mut half_best) = (Duration::MAX, Duration::MAX);
    // In turns, so that both meet the same clock.
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
    fn new(dtype: DType) -> Result<Self, KernelError> {
        let (tokens, inputs, outputs) = SHAPE;
        let ones = |rows, columns| Tensor::ones((rows, columns), dtype, &Device::Cpu);
        let layer =
            Linear::multiplying(dtype, &ones(outputs, inputs)?, None, Activation::None, dtype)?;
        Ok(Self { layer, x: ones(tokens, inputs)?, out: ones(tokens, outputs)? })
    }

    fn run(&self) -> Result<Duration, KernelError> {
        let started = Instant::now();
        alone(|| self.layer.forward_into(&self.x, &self.out))?;
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_the_product_does_not_prefer_it() {
        assert!(measure().is_ok());
        assert!(multiplies_bf16() || !prefers_bf16());
    }
}
