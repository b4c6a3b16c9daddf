//! The launch of `gate`.

use super::description::Argument::{Pointer, U32};
use super::description::{Half, Launch, VECTOR};
use super::elementwise::{THREADS, blocks, number};
use crate::ops::activation::Activation;

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
