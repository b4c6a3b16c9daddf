//! Kernels whose threads take some values of a row each: their grids, and the numbers of activations.

use crate::ops::activation::Activation;

/// Threads of a block.
pub(super) const THREADS: u32 = 256;

/// An activation as the kernels number it.
pub(super) fn number(activation: Activation) -> u32 {
    match activation {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Silu => 3,
        Activation::Tanh => 4,
        Activation::Relu => 5,
    }
}

/// Blocks that give each of `rows` times `parts` a thread.
pub(super) fn blocks(rows: u32, parts: u32) -> u32 {
    (u64::from(rows) * u64::from(parts)).div_ceil(u64::from(THREADS)) as u32
}
