//! Quantised blocks as the blocks that linear layers multiply by, exactly: of a format only the scales and minimums are
//! taken apart here, and the quants are those that give its weights.

use forebay_kernels::{BLOCK, Q4Block, Q8Block};

use crate::load::gguf::blocks::Blocks;
use crate::load::gguf::dequantize::{dequantize, half_at};
use crate::load::gguf::k_blocks::scale_and_minimum;
use crate::load::gguf::kind::{Kind, SUPER_BLOCK};

/// Rows of blocks, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packed {
    /// Of four bits a weight.
    Four(Vec<Q4Block>),
    /// Of up to eight.
    Eight(Vec<Q8Block>),
}

/// The scales of both halves of 32 weights, and what the quant 0 stands for.
#[derive(Debug, Clone, Copy)]
struct Steps {
    scales: [f32; 2],
    minimum: f32,
}

impl Steps {
    fn new(scale: f32, minimum: f32) -> Self {
        Self { scales: [scale; 2], minimum }
    }

    /// The quant of the weight at a place.
    fn quant(self, at: usize, weight: f32) -> f64 {
        let scale = f64::from(self.scales[at / (BLOCK / 2)]);
        // The quotient is a whole number but for the rounding of the weight.
        let quant = ((f64::from(weight) - f64::from(self.minimum)) / scale).round();
        if quant.is_finite() { quant } else { 0.0 }
    }
}

impl Packed {
    /// `None` for a format that linear layers have no blocks for.
    pub(crate) fn of(blocks: &Blocks) -> Option<Self> {
        let four = match blocks.kind {
            Kind::Q4_0 | Kind::Q4_1 | Kind::Q4K => true,
            Kind::Q5_0 | Kind::Q5_1 | Kind::Q8_0 | Kind::Q5K | Kind::Q6K => false,
            _ => return None,
        };
        let weights = dequantize(blocks.kind, &blocks.bytes);
        let steps: Vec<Steps> = blocks
            .bytes
            .chunks_exact(blocks.kind.bytes())
            .flat_map(|block| steps(blocks.kind, block))
            .collect();
        let parts = weights.as_chunks::<BLOCK>().0.iter().zip(steps);
        Some(if four {
            Self::Four(parts.map(|(weights, steps)| of_four(weights, steps)).collect())
        } else {
            Self::Eight(parts.map(|(weights, steps)| of_eight(weights, steps)).collect())
        })
    }

    /// Weights that are plain numbers, in eight bits: the nearest that a scale for each 32 has.
    pub(crate) fn nearest(weights: &[f32]) -> Self {
        let block = |weights: &[f32; BLOCK]| {
            let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            of_eight(weights, Steps::new(largest / 127.0, 0.0))
        };
        Self::Eight(weights.as_chunks::<BLOCK>().0.iter().map(block).collect())
    }

    /// All blocks in eight bits.
    pub(crate) fn into_eight(self) -> Vec<Q8Block> {
        match self {
            Self::Eight(blocks) => blocks,
            Self::Four(blocks) => blocks
                .iter()
                .map(|block| Q8Block {
                    scales: [block.scale; 2],
                    minimum: block.minimum,
                    quants: block.quants().map(u8::cast_signed),
                })
                .collect(),
        }
    }

    /// Several matrices of the same inputs as one, their outputs side by side.
    pub(crate) fn side_by_side(parts: Vec<Self>) -> Self {
        let fours = parts.iter().all(|part| matches!(part, Self::Four(_)));
        if !fours {
            return Self::Eight(parts.into_iter().flat_map(Self::into_eight).collect());
        }
        let blocks = parts.into_iter().flat_map(|part| match part {
            Self::Four(blocks) => blocks,
            Self::Eight(_) => Vec::new(), // there is none
        });
        Self::Four(blocks.collect())
    }
}

fn of_four(weights: &[f32; BLOCK], steps: Steps) -> Q4Block {
    let quant = |at: usize| steps.quant(at, weights[at]).clamp(0.0, 15.0) as u8;
    Q4Block {
        scale: steps.scales[0],
        minimum: steps.minimum,
        quants: std::array::from_fn(|at| quant(at) | quant(at + BLOCK / 2) << 4),
    }
}

fn of_eight(weights: &[f32; BLOCK], steps: Steps) -> Q8Block {
    Q8Block {
        scales: steps.scales,
        minimum: steps.minimum,
        quants: std::array::from_fn(|at| steps.quant(at, weights[at]).clamp(-128.0, 127.0) as i8),
    }
}

/// The steps of each 32 weights of a block.
fn steps(kind: Kind, block: &[u8]) -> Vec<Steps> {
    let scale = || half_at(block, 0);
    match kind {
        Kind::Q4_0 => vec![Steps::new(scale(), -8.0 * scale())],
        Kind::Q4_1 | Kind::Q5_1 => vec![Steps::new(scale(), half_at(block, 2))],
        Kind::Q5_0 | Kind::Q8_0 => vec![Steps::new(scale(), 0.0)],
        Kind::Q4K | Kind::Q5K => {
            let part = |part| {
                let (of_scale, of_minimum) = scale_and_minimum(&block[4..16], part);
                let minimum = half_at(block, 2) * f32::from(of_minimum);
                Steps::new(scale() * f32::from(of_scale), -minimum)
            };
            (0..SUPER_BLOCK / BLOCK).map(part).collect()
        }
        Kind::Q6K => {
            let scales = &block[192..208];
            let scale = half_at(block, 208);
            let part = |part: usize| Steps {
                scales: [0, 1].map(|half| scale * f32::from(scales[2 * part + half].cast_signed())),
                minimum: 0.0,
            };
            (0..SUPER_BLOCK / BLOCK).map(part).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of any bytes but with scales that are small numbers.
    fn block(kind: Kind, seed: u8) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..kind.bytes())
            .map(|at| (at as u8).wrapping_mul(73).wrapping_add(seed.wrapping_mul(31)))
            .collect();
        let scale = [0x66, 0x2a]; // about 0.05
        let places: &[usize] = match kind {
            Kind::Q4_1 | Kind::Q5_1 | Kind::Q4K | Kind::Q5K => &[0, 2],
            Kind::Q6K => &[208],
            _ => &[0],
        };
        for &at in places {
            bytes[at..at + 2].copy_from_slice(&scale);
        }
        bytes
    }

    #[test]
    fn weights_are_exactly_those_of_the_file() {
        use Kind::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for kind in [Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0] {
            let bytes: Vec<u8> = (0..8).flat_map(|seed| block(kind, seed)).collect();
            let expected = dequantize(kind, &bytes);
            let blocks = Blocks { kind, outputs: 8, inputs: kind.values(), bytes };
            let packed = Packed::of(&blocks).unwrap();
            let weights: Vec<f32> = match &packed {
                Packed::Four(blocks) => blocks.iter().flat_map(Q4Block::weights).collect(),
                Packed::Eight(blocks) => blocks.iter().flat_map(Q8Block::weights).collect(),
            };
            assert_eq!(weights.len(), expected.len());
            for (weight, expected) in weights.iter().zip(&expected) {
                assert!((weight - expected).abs() <= 1e-6 * expected.abs().max(0.1), "{kind}");
            }
            let eight: Vec<f32> = packed.into_eight().iter().flat_map(Q8Block::weights).collect();
            assert_eq!(eight, weights, "{kind}");
        }
    }
}
