//! The half precision numbers in blocks.

use half::f16;

/// The f16 at an offset.
pub(crate) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
