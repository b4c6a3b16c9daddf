//! Launches of what is done to each value by itself.

use super::Argument::{Pointer, U32};
use super::{Half, Launch, VECTOR};
use crate::Activation;

const THREADS: u32 = 256;

/// As the kernels number them.
fn number(activation: Activation) -> u32 {
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
fn blocks(rows: u32, parts: u32) -> u32 {
    (u64::from(rows) * u64::from(parts)).div_ceil(u64::from(THREADS)) as u32
}

/// `x = activation(x + bias)`: `[rows, width]`, in place.
pub(crate) fn bias_activation<P>(
    half: Half,
    x: P,
    bias: Option<P>,
    [rows, width]: [u32; 2],
    activation: Activation,
) -> Option<Launch<P>> {
    let arguments = vec![Pointer(x), bias.into(), U32(rows), U32(width), U32(number(activation))];
    let blocks = blocks(rows, width.div_ceil(VECTOR));
    Launch::new(format!("bias_activation_{half}"), blocks, THREADS, 0, arguments)
}

/// `out = activation(x[:, ..inner]) * x[:, inner..]`: `out` is `[rows, inner]`.
pub(crate) fn gate<P>(
    half: Half,
    out: P,
    x: P,
    [rows, inner]: [u32; 2],
    activation: Activation,
) -> Option<Launch<P>> {
    let arguments = vec![Pointer(out), Pointer(x), U32(rows), U32(inner), U32(number(activation))];
    let blocks = blocks(rows, inner.div_ceil(VECTOR));
    Launch::new(format!("gate_{half}"), blocks, THREADS, 0, arguments)
}

/// Turns queries and keys of `qkv`, `[tokens, 3 * heads * dim]`, in place.
pub(crate) fn rotary<P>(
    half: Half,
    qkv: P,
    table: P,
    token_positions: P,
    [tokens, heads, dim]: [u32; 3],
) -> Option<Launch<P>> {
    let arguments = vec![
        Pointer(qkv),
        Pointer(table),
        Pointer(token_positions),
        U32(tokens),
        U32(heads),
        U32(dim),
    ];
    Launch::new(format!("rotary_{half}"), blocks(tokens, heads * dim), THREADS, 0, arguments)
}
