//! Kernels whose blocks hold whole rows of a matrix product and normalise them before they are stored: their sizes.

use super::description::VECTOR;

pub(super) const THREADS: u32 = 256;
const WARPS: u32 = 8;
/// Columns of a warp's sums; it has 32 rows of them.
const WARP_COLUMNS: u32 = 96;
const WARP_ROWS: u32 = 32;
/// Depth that a block takes at a time, of either kernel.
pub(super) const STEP: u32 = 32;
/// Bytes of the number types.
const BYTES: u32 = 2;

/// Warps side by side, and rows of a block, for rows of `width`.
pub(super) fn block(width: u32) -> (u32, u32) {
    let column_warps = width / WARP_COLUMNS;
    (column_warps, WARPS / column_warps * WARP_ROWS)
}

/// Bytes of `rows` rows of `columns` values, the 16 bytes between two included.
pub(super) fn padded(rows: u32, columns: u32) -> u32 {
    rows * (columns + VECTOR) * BYTES
}
