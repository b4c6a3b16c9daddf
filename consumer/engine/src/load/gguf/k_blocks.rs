//! Blocks of 256 values, whose parts of 16 or 32 have small scales of their own.

use crate::load::gguf::half_at::half_at;
use crate::load::gguf::kind::SUPER_BLOCK;

/// Values in a block.
pub(crate) const VALUES: usize = SUPER_BLOCK;

/// Two bits a value: scales and minimums of four bits for each 16.
pub(crate) fn q2_k(block: &[u8], values: &mut [f32]) {
    let scales = &block[..16];
    let quants = &block[16..80];
    let scale = half_at(block, 80);
    let minimum = half_at(block, 82);
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let scale = scale * f32::from(scales[part] & 15);
        let minimum = minimum * f32::from(scales[part] >> 4);
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(two_bits(quants, part * 16 + i)) - minimum;
        }
    }
}

/// Two bits of a value by its index: 128 values share 32 bytes, 32 values a pair of bits in each.
fn two_bits(quants: &[u8], i: usize) -> u8 {
    (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3
}

/// Three bits a value, the third apart: scales of six bits for each 16.
pub(crate) fn q3_k(block: &[u8], values: &mut [f32]) {
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let scale = q3_k_scale(block, part);
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(q3_k_quant(block, part * 16 + i));
        }
    }
}

/// The scale of the 16 values of a part.
pub(crate) fn q3_k_scale(block: &[u8], part: usize) -> f32 {
    let scales = &block[96..108];
    let low = scales[part % 8] >> (part / 8 * 4) & 15;
    let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
    half_at(block, 108) * (f32::from(low | high << 4) - 32.0)
}

/// Steps of a value by its index, from -4 to 3.
pub(crate) fn q3_k_quant(block: &[u8], i: usize) -> i8 {
    // Where the bit is there nothing is taken away.
    let lowered = if block[i % 32] >> (i / 32) & 1 == 0 { 4 } else { 0 };
    two_bits(&block[32..96], i).cast_signed() - lowered
}

/// The scale and the minimum of the 32 values of a part: six bits each of twelve bytes.
pub(crate) fn scale_and_minimum(scales: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (scales[part] & 63, scales[part + 4] & 63);
    }
    let low = scales[part + 4];
    (low & 15 | (scales[part - 4] >> 6) << 4, low >> 4 | (scales[part] >> 6) << 4)
}

/// Four bits a value.
pub(crate) fn q4_k(block: &[u8], values: &mut [f32]) {
    of_four_bits(&block[..16], &block[16..144], |_| 0, values);
}

/// Five bits a value, the fifth apart.
pub(crate) fn q5_k(block: &[u8], values: &mut [f32]) {
    let fifths = &block[16..48];
    let fifth = |i: usize| (fifths[i % 32] >> (i / 32) & 1) << 4;
    of_four_bits(&block[..16], &block[48..176], fifth, values);
}

/// Values of four bits and perhaps a fifth; `head` has both scales and those of parts.
fn of_four_bits(head: &[u8], quants: &[u8], fifth: impl Fn(usize) -> u8, values: &mut [f32]) {
    let scale = half_at(head, 0);
    let minimum = half_at(head, 2);
    for (part, values) in values.chunks_exact_mut(32).enumerate() {
        let (of_scale, of_minimum) = scale_and_minimum(&head[4..], part);
        let scale = scale * f32::from(of_scale);
        let minimum = minimum * f32::from(of_minimum);
        for (i, value) in values.iter_mut().enumerate() {
            let low = quants[part / 2 * 32 + i] >> (part % 2 * 4) & 15;
            *value = scale * f32::from(low | fifth(part * 32 + i)) - minimum;
        }
    }
}

/// Six bits a value, two of them apart: scales of eight bits for each 16.
pub(crate) fn q6_k(block: &[u8], values: &mut [f32]) {
    let scales = &block[192..208];
    let scale = half_at(block, 208);
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let scale = scale * f32::from(scales[part] as i8);
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(q6_k_quant(block, part * 16 + i));
        }
    }
}

/// Steps of a value by its index, from -32 to 31.
pub(crate) fn q6_k_quant(block: &[u8], i: usize) -> i8 {
    let low = block[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
    (low | two_bits(&block[128..192], i) << 4).cast_signed() - 32
}
