//! Blocks of MXFP4 as safetensors have them, as the blocks that a GGUF has: the same bytes in another order.

use crate::load::gguf::blocks::Blocks;
use crate::load::gguf::kind::Kind;

/// Values of a block.
pub(crate) const VALUES: usize = 32;

/// A matrix of blocks: `values` has 16 bytes a block, with two values each that follow each other, `scales` a byte.
pub(crate) fn blocks(outputs: usize, inputs: usize, values: &[u8], scales: &[u8]) -> Blocks {
    let mut bytes = Vec::with_capacity(values.len() + scales.len());
    for (block, scale) in values.as_chunks::<{ VALUES / 2 }>().0.iter().zip(scales) {
        let value = |at: usize| block[at / 2] >> (at % 2 * 4) & 15;
        bytes.push(*scale);
        // The lower half of a byte is of the first 16 values there, the upper one of the others.
        bytes.extend((0..VALUES / 2).map(|at| value(at) | value(at + VALUES / 2) << 4));
    }
    Blocks { kind: Kind::Mxfp4, outputs, inputs, bytes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]
    use super::*;

    #[test]
    fn values_are_those_of_the_format_in_their_order() {
        // Values 0, 1, 2 and so on of the table, twice; a block of halves of them.
        let values: Vec<u8> =
            (0..16).map(|byte| (2 * byte % 16) | (((2 * byte + 1) % 16) << 4)).collect();
        let blocks = blocks(1, 64, &[values.clone(), values].concat(), &[127, 126]);
        let row = blocks.f32().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let table: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for (at, value) in row.iter().enumerate() {
            let sign = if at % 16 < 8 { 1.0 } else { -1.0 };
            let scale = if at < 32 { 1.0 } else { 0.5 };
            assert_eq!(value.to_bits() << 1, (sign * scale * table[at % 8]).to_bits() << 1);
            assert!(*value == 0.0 || value.signum() == sign);
        }
    }
}
