//! The launch of `bias_activation`, the epilogue of a `linear` after a cuBLAS GEMM.

use super::description::Argument::{Pointer, U32};
use super::description::{Half, Launch, VECTOR};
use super::elementwise::{THREADS, blocks, number};
use crate::ops::activation::Activation;

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
