//! The launch of `rotary`.

use super::description::Argument::{Pointer, U32};
use super::description::{Half, Launch};
use super::elementwise::{THREADS, blocks};

/// Rotates queries and keys of `qkv`, `[tokens, 3 * heads * dim]`, in place.
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
