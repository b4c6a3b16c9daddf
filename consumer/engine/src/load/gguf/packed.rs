//! A file's quantised blocks as the blocks that linear layers multiply by: the same numbers in another layout.
//!
//! Each weight is `scale * quant + minimum` on both sides, and what comes out has the file's bits, but that a zero has
//! no sign. `Q2_K` alone, whose halves of a block have minimums of their own, becomes the nearest of eight bits: off by
//! at most 1/254 of the largest of 32 weights.

use forebay_kernels::{BLOCK, FP4_DOUBLED, Fp4Block, Q4Block, Q8Block};
use rayon::prelude::*;

use crate::load::gguf::blocks::Blocks;
use crate::load::gguf::dequantize::{dequantize, fifth, mxfp4_scale};
use crate::load::gguf::half_at::half_at;
use crate::load::gguf::k_blocks::{q3_k_quant, q3_k_scale, q6_k_quant, scale_and_minimum};
use crate::load::gguf::kind::{Kind, SUPER_BLOCK};

/// Rows of blocks, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packed {
    /// Of four bits a weight.
    Four(Vec<Q4Block>),
    /// Of four bits a weight, which are numbers of a table.
    Table(Vec<Fp4Block>),
    /// Of up to eight.
    Eight(Vec<Q8Block>),
}

/// Parts of 32 weights in a block of the types that share scales.
const PARTS: usize = SUPER_BLOCK / BLOCK;

impl Packed {
    /// The blocks of a matrix. Types of plain numbers have none.
    pub(crate) fn of(blocks: &Blocks) -> Self {
        let bytes = blocks.bytes.par_chunks_exact(blocks.kind.bytes());
        match blocks.kind {
            Kind::Q4_0 => Self::Four(bytes.map(q4_0).collect()),
            Kind::Q4_1 => Self::Four(bytes.map(q4_1).collect()),
            Kind::Q4K => Self::Four(bytes.flat_map_iter(|block| parts(block, q4_k)).collect()),
            Kind::Q5_0 => Self::Eight(bytes.map(q5_0).collect()),
            Kind::Q5_1 => Self::Eight(bytes.map(q5_1).collect()),
            Kind::Q8_0 => Self::Eight(bytes.map(q8_0).collect()),
            Kind::Mxfp4 => Self::Table(bytes.map(mxfp4).collect()),
            Kind::Q3K => Self::Eight(bytes.flat_map_iter(|block| parts(block, q3_k)).collect()),
            Kind::Q5K => Self::Eight(bytes.flat_map_iter(|block| parts(block, q5_k)).collect()),
            Kind::Q6K => Self::Eight(bytes.flat_map_iter(|block| parts(block, q6_k)).collect()),
            Kind::Q2K | Kind::F32 | Kind::F16 | Kind::BF16 => {
                let weights = dequantize(blocks.kind, &blocks.bytes);
                Self::Eight(weights.as_chunks::<BLOCK>().0.iter().map(nearest).collect())
            }
        }
    }

    /// All blocks in eight bits.
    fn into_eight(self) -> Vec<Q8Block> {
        match self {
            Self::Eight(blocks) => blocks,
            Self::Table(blocks) => {
                let widened = |block: &Fp4Block| {
                    let quants = block.quants();
                    eight(block.scale, 0.0, |i| FP4_DOUBLED[usize::from(quants[i])])
                };
                blocks.iter().map(widened).collect()
            }
            Self::Four(blocks) => {
                let widened = |block: &Q4Block| Q8Block {
                    scales: [block.scale; 2],
                    minimum: block.minimum,
                    quants: block.quants().map(u8::cast_signed),
                };
                blocks.iter().map(widened).collect()
            }
        }
    }

    /// Several matrices of the same inputs as one, their outputs side by side: of four bits if all are, of one kind.
    pub(crate) fn side_by_side(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(mut joined) = parts.next() else { return Self::Four(Vec::new()) };
        for part in parts {
            joined = match (joined, part) {
                (Self::Four(mut blocks), Self::Four(more)) => {
                    blocks.extend(more);
                    Self::Four(blocks)
                }
                (Self::Table(mut blocks), Self::Table(more)) => {
                    blocks.extend(more);
                    Self::Table(blocks)
                }
                (blocks, more) => {
                    let mut blocks = blocks.into_eight();
                    blocks.extend(more.into_eight());
                    Self::Eight(blocks)
                }
            };
        }
        joined
    }
}

/// The parts of a block of 256.
fn parts<B>(block: &[u8], part: fn(&[u8], usize) -> B) -> impl Iterator<Item = B> {
    (0..PARTS).map(move |index| part(block, index))
}

/// A block of one scale.
fn eight(scale: f32, minimum: f32, quant: impl Fn(usize) -> i8) -> Q8Block {
    Q8Block { scales: [scale; 2], minimum, quants: std::array::from_fn(quant) }
}

/// The lower half of byte `i` for weight `i`, the upper one for weight `i + 16`.
fn nibble(quants: &[u8], i: usize) -> u8 {
    if i < BLOCK / 2 { quants[i] & 15 } else { quants[i - BLOCK / 2] >> 4 }
}

fn four(scale: f32, minimum: f32, quants: &[u8]) -> Q4Block {
    Q4Block { scale, minimum, quants: std::array::from_fn(|i| quants[i]) }
}

fn q4_0(block: &[u8]) -> Q4Block {
    let scale = half_at(block, 0);
    four(scale, -8.0 * scale, &block[2..])
}

fn q4_1(block: &[u8]) -> Q4Block {
    four(half_at(block, 0), half_at(block, 2), &block[4..])
}

fn q5_0(block: &[u8]) -> Q8Block {
    let quant = |i| (nibble(&block[6..], i) | fifth(block, 2, i)).cast_signed() - 16;
    eight(half_at(block, 0), 0.0, quant)
}

fn q5_1(block: &[u8]) -> Q8Block {
    let quant = |i| (nibble(&block[8..], i) | fifth(block, 4, i)).cast_signed();
    eight(half_at(block, 0), half_at(block, 2), quant)
}

fn q8_0(block: &[u8]) -> Q8Block {
    eight(half_at(block, 0), 0.0, |i| block[2 + i].cast_signed())
}

fn mxfp4(block: &[u8]) -> Fp4Block {
    Fp4Block { scale: mxfp4_scale(block), quants: std::array::from_fn(|i| block[1 + i]) }
}

/// The scale and the minimum of a part.
fn factors(block: &[u8], part: usize) -> [f32; 2] {
    let (scale, minimum) = scale_and_minimum(&block[4..16], part);
    [half_at(block, 0) * f32::from(scale), -(half_at(block, 2) * f32::from(minimum))]
}

/// Four bits of the quants of a part: two parts share 32 bytes.
fn low(quants: &[u8], part: usize, i: usize) -> u8 {
    quants[part / 2 * BLOCK + i] >> (part % 2 * 4) & 15
}

fn q4_k(block: &[u8], part: usize) -> Q4Block {
    let [scale, minimum] = factors(block, part);
    let quant = |i| low(&block[16..], part, i);
    let quants = std::array::from_fn(|i| quant(i) | quant(i + BLOCK / 2) << 4);
    Q4Block { scale, minimum, quants }
}

fn q5_k(block: &[u8], part: usize) -> Q8Block {
    let [scale, minimum] = factors(block, part);
    let fifth = |i: usize| (block[16 + i] >> part & 1) << 4;
    eight(scale, minimum, |i| (low(&block[48..], part, i) | fifth(i)).cast_signed())
}

fn q3_k(block: &[u8], part: usize) -> Q8Block {
    let scales = [0, 1].map(|half| q3_k_scale(block, 2 * part + half));
    let quants = std::array::from_fn(|i| q3_k_quant(block, part * BLOCK + i));
    Q8Block { scales, minimum: 0.0, quants }
}

fn q6_k(block: &[u8], part: usize) -> Q8Block {
    let scale =
        |half: usize| half_at(block, 208) * f32::from(block[192 + 2 * part + half].cast_signed());
    let quants = std::array::from_fn(|i| q6_k_quant(block, part * BLOCK + i));
    Q8Block { scales: [0, 1].map(scale), minimum: 0.0, quants }
}

/// The nearest that a scale for all 32 has.
fn nearest(weights: &[f32; BLOCK]) -> Q8Block {
    let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    let scale = largest / 127.0;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    eight(scale, 0.0, |i| (weights[i] * inverse).round_ties_even() as i8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn weights(packed: &Packed) -> Vec<f32> {
        match packed {
            Packed::Four(blocks) => blocks.iter().flat_map(Q4Block::weights).collect(),
            Packed::Eight(blocks) => blocks.iter().flat_map(Q8Block::weights).collect(),
            Packed::Table(blocks) => blocks.iter().flat_map(Fp4Block::weights).collect(),
        }
    }

    /// Bits, of a zero without its sign, and of all that is no number the same.
    fn bits(value: f32) -> u32 {
        if value.is_nan() { f32::NAN.to_bits() } else { (value + 0.0).to_bits() }
    }

    fn packed(kind: Kind, bytes: &[u8]) -> Packed {
        let inputs = bytes.len() / kind.bytes() * kind.values();
        Packed::of(&Blocks { kind, outputs: 1, inputs, bytes: bytes.to_vec() })
    }

    const EXACT: [Kind; 10] = {
        use Kind::{Mxfp4, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        [Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q8_0, Mxfp4, Q3K, Q5K, Q6K]
    };

    proptest! {
        #[test]
        fn weights_have_the_bits_of_the_file_whatever_a_block_holds(
            kind in prop::sample::select(EXACT.to_vec()),
            bytes in prop::collection::vec(any::<u8>(), 2 * 210),
        ) {
            let bytes = &bytes[..2 * kind.bytes()];
            let expected = dequantize(kind, bytes);
            let packed = packed(kind, bytes);
            let is_four = matches!(kind, Kind::Q4_0 | Kind::Q4_1 | Kind::Q4K);
            prop_assert_eq!(matches!(packed, Packed::Four(_)), is_four);
            prop_assert_eq!(matches!(packed, Packed::Table(_)), kind == Kind::Mxfp4);
            // An infinite scale makes infinities of different sums.
            let finite = |value: &f32| value.is_finite();
            let weights = weights(&packed);
            prop_assume!(weights.iter().all(finite) && expected.iter().all(finite));
            let [weights, expected] =
                [weights, expected].map(|values| values.into_iter().map(bits).collect::<Vec<_>>());
            prop_assert_eq!(&weights, &expected);
            let eight = Packed::Eight(packed.into_eight());
            let eight: Vec<u32> = super::tests::weights(&eight).into_iter().map(bits).collect();
            prop_assert_eq!(eight, expected);
        }

        #[test]
        fn what_has_no_blocks_of_its_own_is_off_by_a_254th_of_the_largest(
            bytes in prop::collection::vec(any::<u8>(), 84),
        ) {
            let expected = dequantize(Kind::Q2K, &bytes);
            prop_assume!(expected.iter().all(|value| value.abs() < 1e30));
            let packed = weights(&packed(Kind::Q2K, &bytes));
            for (weights, expected) in packed.chunks(BLOCK).zip(expected.chunks(BLOCK)) {
                let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                for (weight, expected) in weights.iter().zip(expected) {
                    prop_assert!((weight - expected).abs() <= largest / 253.9);
                }
            }
        }
    }

    #[test]
    fn parts_side_by_side_are_of_four_bits_only_if_all_are() {
        let four = packed(Kind::Q4_1, &[0x11; 2 * 20]);
        let eight = packed(Kind::Q8_0, &[0x11; 34]);
        let joined =
            |parts: &[&Packed]| Packed::side_by_side(parts.iter().copied().cloned().collect());
        let both = joined(&[&four, &four]);
        assert!(matches!(&both, Packed::Four(blocks) if blocks.len() == 4));
        let table = packed(Kind::Mxfp4, &[0x7B; 17]);
        let tables = joined(&[&table, &table]);
        assert!(matches!(&tables, Packed::Table(blocks) if blocks.len() == 2));
        let mixed = joined(&[&four, &table]);
        let both: Vec<f32> = [&four, &table].into_iter().flat_map(weights).collect();
        assert!(matches!(&mixed, Packed::Eight(_)) && weights(&mixed) == both);
        for parts in [[&four, &eight], [&eight, &four]] {
            let mixed = joined(&parts);
            assert!(matches!(&mixed, Packed::Eight(blocks) if blocks.len() == 3));
            let expected: Vec<f32> = parts.into_iter().flat_map(weights).collect();
            assert_eq!(weights(&mixed), expected);
        }
    }
}
