//! How blocks lie in memory. The 32 blocks of a panel's outputs along the same inputs lie side by side, so that a
//! panel is one stream: first their quants, four inputs of all outputs at a time, then their scales, then their minima.

use candle_core::{Device, Result, Tensor};
use half::f16;

use crate::cpu::gemm::PANEL;
use crate::ops::blocks::{BLOCK, FP4_DOUBLED, Fp4Block, Q4Block, Q8Block};
use crate::ops::linear::{BlockFormat, PackedWeight};

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Inputs whose quants are a word.
pub(super) const QUAD: usize = 4;

impl BlockFormat {
    /// Bytes of the quants of a panel's blocks along the same inputs.
    pub(super) const fn quant_bytes(self) -> usize {
        PANEL * BLOCK * self.bits / 8
    }

    /// Bytes of a scale or a minimum of each of a panel's blocks along the same inputs.
    pub(super) const fn line_bytes(self) -> usize {
        PANEL * if self.wide { 4 } else { 2 }
    }

    /// Lines of scales.
    pub(super) const fn scales(self) -> usize {
        if self.halves { 2 } else { 1 }
    }

    /// Bytes of a panel's blocks along the same inputs.
    pub(super) const fn bytes(self) -> usize {
        let lines = self.scales() + if self.minima { 1 } else { 0 };
        self.quant_bytes() + lines * self.line_bytes()
    }
}

/// A block of a checkpoint.
pub(crate) trait Block {
    /// Of a weight.
    const BITS: usize;
    /// Whether quants are numbers of a table.
    const TABLE: bool = false;

    /// A scale for each half, and the minimum.
    fn factors(&self) -> ([f32; 2], f32);

    /// The quants in the order of the inputs, without a sign: of 8 bits they are 128 more.
    fn bytes(&self) -> [u8; BLOCK];
}

impl Block for Q4Block {
    const BITS: usize = 4;

    fn factors(&self) -> ([f32; 2], f32) {
        ([self.scale; 2], self.minimum)
    }

    fn bytes(&self) -> [u8; BLOCK] {
        self.quants()
    }
}

impl Block for Fp4Block {
    const BITS: usize = 4;
    const TABLE: bool = true;

    fn factors(&self) -> ([f32; 2], f32) {
        ([self.scale; 2], 0.0)
    }

    fn bytes(&self) -> [u8; BLOCK] {
        self.quants()
    }
}

impl Block for Q8Block {
    const BITS: usize = 8;

    fn factors(&self) -> ([f32; 2], f32) {
        (self.scales, self.minimum)
    }

    fn bytes(&self) -> [u8; BLOCK] {
        self.quants.map(|quant| quant.cast_unsigned() ^ 0x80)
    }
}

/// The smallest format that holds all factors as they are. 4-bit blocks have their minimum always, those without one
/// count from -8 scales, but where quants are of a table.
fn format_of<B: Block>(blocks: &[B]) -> BlockFormat {
    // Infinite ones are left to f32; f16 keeps the sign of zero.
    let narrow = |value: f32| {
        value.is_finite() && f16::from_f32(value).to_f32().to_bits() == value.to_bits()
    };
    let mut format = BlockFormat {
        bits: B::BITS,
        wide: false,
        halves: false,
        minima: B::BITS == 4 && !B::TABLE,
        table: B::TABLE,
        skipped: 0,
    };
    for (scales, minimum) in blocks.iter().map(Block::factors) {
        format.wide |= !(narrow(scales[0]) && narrow(scales[1]) && narrow(minimum));
        format.halves |= scales[0].to_bits() != scales[1].to_bits();
        format.minima |= minimum != 0.0;
    }
    // Blocks of 8 bits with more than a scale are rare enough for kernels of f32 alone.
    format.wide |= format.bits == 8 && (format.halves || format.minima);
    format
}

/// Packs blocks, `[out, in / 32]` of these sizes.
pub(crate) fn pack<B: Block>([outputs, inputs]: [usize; 2], blocks: &[B]) -> Result<PackedWeight> {
    let mut format = format_of(blocks);
    let depth = inputs / BLOCK;
    let count = outputs.div_ceil(PANEL) * depth * format.bytes() + LINE_BYTES;
    let mut bytes = vec![0; count];
    format.skipped = bytes.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
    for (output, row) in blocks.chunks_exact(depth.max(1)).enumerate() {
        let panel = format.skipped + output / PANEL * depth * format.bytes();
        for (at, block) in row.iter().enumerate() {
            let bytes = &mut bytes[panel + at * format.bytes()..][..format.bytes()];
            pack_block(format, block, output % PANEL, bytes);
        }
    }
    let values = Tensor::from_vec(bytes, count, &Device::Cpu)?;
    Ok(PackedWeight { values, scales: None, blocks: Some(format) })
}

/// A block as column `column` of a panel's blocks along its inputs. Bytes are zeros before.
fn pack_block(format: BlockFormat, block: &impl Block, column: usize, bytes: &mut [u8]) {
    let (quants, factors) = bytes.split_at_mut(format.quant_bytes());
    for (index, quant) in block.bytes().into_iter().enumerate() {
        let quad = index / QUAD;
        let at = column * QUAD + index % QUAD;
        if format.bits == 4 {
            // The lower halves of a line are a quad, the upper ones the next.
            quants[quad / 2 * PANEL * QUAD + at] |= quant << (quad % 2 * 4);
        } else {
            quants[quad * PANEL * QUAD + at] = quant;
        }
    }
    let (scales, minimum) = block.factors();
    let minimum = format.minima.then_some(minimum);
    let lines = factors.chunks_exact_mut(format.line_bytes());
    for (line, factor) in lines.zip(scales[..format.scales()].iter().copied().chain(minimum)) {
        if format.wide {
            line[column * 4..][..4].copy_from_slice(&factor.to_ne_bytes());
        } else {
            line[column * 2..][..2].copy_from_slice(&f16::from_f32(factor).to_ne_bytes());
        }
    }
}

/// The weights of an output, `out` as long as there are inputs.
pub(in crate::cpu::linear) fn weights_of(
    format: BlockFormat,
    packed: &[u8],
    output: usize,
    out: &mut [f32],
) {
    let panel_bytes = out.len() / BLOCK * format.bytes();
    let panel = &packed[format.skipped + output / PANEL * panel_bytes..][..panel_bytes];
    let column = output % PANEL;
    for (out, block) in out.chunks_exact_mut(BLOCK).zip(panel.chunks_exact(format.bytes())) {
        let (quants, lines) = block.split_at(format.quant_bytes());
        let factor = |line: usize| {
            let line = &lines[line * format.line_bytes()..][..format.line_bytes()];
            if format.wide {
                let at = &line[column * 4..];
                f32::from_ne_bytes([at[0], at[1], at[2], at[3]])
            } else {
                f16::from_ne_bytes([line[column * 2], line[column * 2 + 1]]).to_f32()
            }
        };
        let scales = [factor(0), factor(format.scales() - 1)];
        let minimum = if format.minima { factor(format.scales()) } else { 0.0 };
        for (index, weight) in out.iter_mut().enumerate() {
            let quad = index / QUAD;
            let at = column * QUAD + index % QUAD;
            let quant = if format.bits == 4 {
                let quant = quants[quad / 2 * PANEL * QUAD + at] >> (quad % 2 * 4) & 15;
                if format.table {
                    f32::from(FP4_DOUBLED[usize::from(quant)])
                } else {
                    f32::from(quant)
                }
            } else {
                f32::from((quants[quad * PANEL * QUAD + at] ^ 0x80).cast_signed())
            };
            *weight = scales[index / (BLOCK / 2)] * quant + minimum;
        }
    }
}
