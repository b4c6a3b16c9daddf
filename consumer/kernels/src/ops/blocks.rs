//! Weights in blocks of 32 along the input, as quantized checkpoints hold them.
//!
//! - formula: `y = activation(sum over blocks of scale_x * (scale * sum(q_x * q) + minimum * sum(q_x)) + bias)`
//! - input: in each block of a row `q_x = round(x / scale_x)` with `scale_x = max abs x / 127`, so -127 to 127
//! - numerics: sums within a block are exact integers; those over blocks are f32 in the order of the blocks, which does
//!   not depend on the rows beside
//! - source: Frantar et al. 2022 and the file format GGUF for the blocks; Jacob et al. 2018 for sums of integers
//!
//! The weights are exact: nothing is rounded that a checkpoint's block says. Of GGUF's formats `Q4_0` (with a minimum
//! of -8 scales), `Q4_1` and `Q4_K` fit [`Q4Block`]. [`Q8Block`] takes `Q5_0`, `Q5_1`, `Q5_K` and `Q8_0`, those with a
//! scale for each half of a block, `Q3_K` and `Q6_K`, and tables of small integers, as `IQ4_NL`. [`Fp4Block`] is
//! `MXFP4`, whose quants are numbers of a table of 16.

/// Weights of a block.
pub const BLOCK: usize = 32;

/// Weights of an output along 32 inputs, in four bits each: `scale * quant + minimum`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q4Block {
    /// The value of one step.
    pub scale: f32,
    /// The value of quant 0.
    pub minimum: f32,
    /// In the order of GGUF: the lower half of byte `i` is weight `i`, the upper half is weight `i + 16`.
    pub quants: [u8; BLOCK / 2],
}

impl Q4Block {
    /// Its quants, each from 0 to 15, in the order of the inputs.
    pub fn quants(&self) -> [u8; BLOCK] {
        halves(self.quants)
    }

    /// Its weights in f32.
    pub fn weights(&self) -> [f32; BLOCK] {
        self.quants().map(|quant| self.scale * f32::from(quant) + self.minimum)
    }
}

/// Twice the numbers that four bits are in `MXFP4`: a sign, two bits of exponent, one of fraction (E2M1).
pub const FP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Weights of an output along 32 inputs, in four bits each: `scale * FP4_DOUBLED[quant]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fp4Block {
    /// The value of the smallest step, half of the block's power of two.
    pub scale: f32,
    /// In the order of GGUF: the lower half of byte `i` is weight `i`, the upper half is weight `i + 16`.
    pub quants: [u8; BLOCK / 2],
}

impl Fp4Block {
    /// Its quants, each from 0 to 15, in the order of the inputs.
    pub fn quants(&self) -> [u8; BLOCK] {
        halves(self.quants)
    }

    /// Its weights in f32.
    pub fn weights(&self) -> [f32; BLOCK] {
        self.quants().map(|quant| self.scale * f32::from(FP4_DOUBLED[usize::from(quant)]))
    }
}

/// The lower halves of bytes, then the upper ones.
fn halves(bytes: [u8; BLOCK / 2]) -> [u8; BLOCK] {
    let mut quants = [0; BLOCK];
    let (first, second) = quants.split_at_mut(BLOCK / 2);
    for ((first, second), byte) in first.iter_mut().zip(second).zip(bytes) {
        *first = byte & 15;
        *second = byte >> 4;
    }
    quants
}

/// Weights of an output along 32 inputs, in eight bits each: `scale * quant + minimum`, with a scale for each half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q8Block {
    /// The value of one step in the first half and in the second; mostly the same.
    pub scales: [f32; 2],
    /// The value of quant 0; mostly 0.
    pub minimum: f32,
    /// In the order of the inputs.
    pub quants: [i8; BLOCK],
}

impl Q8Block {
    /// Its weights in f32.
    pub fn weights(&self) -> [f32; BLOCK] {
        let mut weights = [0.0; BLOCK];
        for (index, (weight, quant)) in weights.iter_mut().zip(self.quants).enumerate() {
            let scale = self.scales[index / (BLOCK / 2)];
            *weight = scale * f32::from(quant) + self.minimum;
        }
        weights
    }
}

/// `x` in float64 as a layer in blocks sees it, quantized by block: `linear`'s reference does the rest.
#[cfg(test)]
pub(crate) fn quantized(x: &[f32]) -> Vec<f64> {
    let mut seen = Vec::with_capacity(x.len());
    for block in x.chunks_exact(BLOCK) {
        let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let scale = f64::from(largest / 127.0);
        // In f32 as the operation does it: a value at the middle of two steps goes where f32's rounding sends it.
        seen.extend(block.iter().map(|x| scale * f64::from((x * inverse).round_ties_even())));
    }
    seen
}
