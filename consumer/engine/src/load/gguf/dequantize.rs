//! Quantised blocks to floats, exactly as the format's reference does: every multiplication and sum in f32,
//! in its order, each rounded by itself.

use forebay_kernels::FP4_DOUBLED;
use half::bf16;
use rayon::prelude::*;

use crate::load::gguf::half_at::half_at;
use crate::load::gguf::k_blocks;
use crate::load::gguf::kind::Kind;

/// Blocks that a thread takes at once.
const BLOCKS_AT_ONCE: usize = 1024;

/// The values of whole blocks.
pub(crate) fn dequantize(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    let block: fn(&[u8], &mut [f32]) = match kind {
        Kind::F32 => |x, y| y[0] = f32::from_le_bytes([x[0], x[1], x[2], x[3]]),
        Kind::F16 => |x, y| y[0] = half_at(x, 0),
        Kind::BF16 => |x, y| y[0] = bf16::from_le_bytes([x[0], x[1]]).to_f32(),
        Kind::Q4_0 => q4_0,
        Kind::Q4_1 => q4_1,
        Kind::Q5_0 => q5_0,
        Kind::Q5_1 => q5_1,
        Kind::Q8_0 => q8_0,
        Kind::Mxfp4 => mxfp4,
        Kind::Q2K => k_blocks::q2_k,
        Kind::Q3K => k_blocks::q3_k,
        Kind::Q4K => k_blocks::q4_k,
        Kind::Q5K => k_blocks::q5_k,
        Kind::Q6K => k_blocks::q6_k,
    };
    let mut values = vec![0.0; bytes.len() / kind.bytes() * kind.values()];
    let at_once = BLOCKS_AT_ONCE * (k_blocks::VALUES / kind.values());
    values
        .par_chunks_mut(kind.values() * at_once)
        .zip(bytes.par_chunks(kind.bytes() * at_once))
        .for_each(|(values, bytes)| {
            let blocks = bytes.chunks_exact(kind.bytes());
            for (values, bytes) in values.chunks_exact_mut(kind.values()).zip(blocks) {
                block(bytes, values);
            }
        });
    values
}

/// The low and the high halves of bytes: values of the first half of a block, and of the second.
fn nibbles(quants: &[u8], values: &mut [f32], mut value: impl FnMut(usize, u8) -> f32) {
    let half = quants.len();
    for (i, &byte) in quants.iter().enumerate() {
        values[i] = value(i, byte & 15);
        values[i + half] = value(i + half, byte >> 4);
    }
}

fn q4_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    nibbles(&block[2..], values, |_, quant| scale * (f32::from(quant) - 8.0));
}

fn q4_1(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    let minimum = half_at(block, 2);
    nibbles(&block[4..], values, |_, quant| scale * f32::from(quant) + minimum);
}

/// The fifth bit of a value by its index, shifted to where it belongs.
pub(crate) fn fifth(block: &[u8], at: usize, i: usize) -> u8 {
    ((block[at + i / 8] >> (i % 8)) & 1) << 4
}

fn q5_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    let value = |i, low| scale * (f32::from(low | fifth(block, 2, i)) - 16.0);
    nibbles(&block[6..], values, value);
}

fn q5_1(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    let minimum = half_at(block, 2);
    let value = |i, low| scale * f32::from(low | fifth(block, 4, i)) + minimum;
    nibbles(&block[8..], values, value);
}

fn q8_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    for (value, &quant) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(quant as i8) * scale;
    }
}

/// Half of the power of two that a block's first byte says; the two smallest are subnormal.
pub(crate) fn mxfp4_scale(block: &[u8]) -> f32 {
    let exponent = u32::from(block[0]);
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
    f32::from_bits(bits)
}

fn mxfp4(block: &[u8], values: &mut [f32]) {
    let scale = mxfp4_scale(block);
    nibbles(&block[1..], values, |_, quant| scale * f32::from(FP4_DOUBLED[usize::from(quant)]));
}
