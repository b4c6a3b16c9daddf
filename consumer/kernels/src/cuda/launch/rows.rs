//! Kernels that hold a row in the registers of a warp: their names and limits.

use super::description::{Half, VECTOR, WARP};

/// Threads of a block, a warp a row.
pub(super) const THREADS: u32 = 256;
/// The most values of a row that a warp holds in registers.
pub(crate) const HIDDEN_MAX: u32 = ROW_VECTORS[3] * WARP * VECTOR;

/// Vectors a lane, of a row that a warp holds: what there are kernels for.
const ROW_VECTORS: [u32; 4] = [1, 2, 4, 6];

/// The kernel of a family for rows of so many values: the smallest that holds them.
pub(super) fn row_kernel(name: &str, half: Half, hidden: u32) -> String {
    let needed = hidden.div_ceil(WARP * VECTOR);
    let vectors = ROW_VECTORS.into_iter().find(|vectors| *vectors >= needed);
    format!("{name}_{half}_{}", vectors.unwrap_or(needed))
}
