//! An instruction set as weights in blocks need it, beside [`Target`]: halves of bytes, and numbers that are converted.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{
    vandq_u32, vcvtq_f32_s32, vdupq_n_u32, vld1q_u8, vmulq_f32, vqtbl1q_u8, vreinterpretq_s32_u32,
    vreinterpretq_u8_u32, vreinterpretq_u32_u8, vshrq_n_u32,
};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_shuffle_epi8, _mm512_srli_epi32,
};

#[cfg(target_arch = "aarch64")]
use super::Neon;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16, Avx512Vnni};
use super::{Portable, Target};
use crate::ops::blocks::FP4_DOUBLED;

/// [`FP4_DOUBLED`], and 128 more.
const FP4_BYTES: [u8; 16] = {
    let mut bytes = [0; 16];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = FP4_DOUBLED[at].cast_unsigned() ^ 0x80;
        at += 1;
    }
    bytes
};

/// The lower half of every byte of a word.
const LOWER: u32 = 0x0F0F_0F0F;

/// As for [`Target`], including the safety of its functions.
pub(crate) trait Quads: Target {
    /// The lower halves of all bytes.
    unsafe fn lower_halves(words: Self::Words) -> Self::Words;

    /// The upper halves of all bytes.
    unsafe fn upper_halves(words: Self::Words) -> Self::Words;

    /// Bytes from 0 to 15 as the numbers that they are in `MXFP4`, doubled, and 128 more.
    unsafe fn fp4_values(words: Self::Words) -> Self::Words;

    /// Signed words as numbers.
    unsafe fn floats(words: Self::Words) -> Self::Register;

    /// `a * b` in each lane.
    unsafe fn times(a: Self::Register, b: Self::Register) -> Self::Register;

    /// `WIDTH` finite numbers in f16 from `from` on, widened.
    unsafe fn load_f16(from: *const u16) -> Self::Register;
}

impl Quads for Portable {
    #[inline(always)]
    unsafe fn lower_halves(words: [u32; 4]) -> [u32; 4] {
        [words[0] & LOWER, words[1] & LOWER, words[2] & LOWER, words[3] & LOWER]
    }

    #[inline(always)]
    unsafe fn upper_halves(words: [u32; 4]) -> [u32; 4] {
        [words[0] >> 4 & LOWER, words[1] >> 4 & LOWER, words[2] >> 4 & LOWER, words[3] >> 4 & LOWER]
    }

    #[inline(always)]
    unsafe fn fp4_values(words: [u32; 4]) -> [u32; 4] {
        words.map(|word| {
            u32::from_ne_bytes(word.to_ne_bytes().map(|byte| FP4_BYTES[usize::from(byte & 15)]))
        })
    }

    #[inline(always)]
    unsafe fn floats(words: [u32; 4]) -> [f32; 4] {
        let mut floats = [0.0; 4];
        for (float, word) in floats.iter_mut().zip(words) {
            *float = word.cast_signed() as f32;
        }
        floats
    }

    #[inline(always)]
    unsafe fn times(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { widened(from) }
    }
}

/// Four finite numbers in f16, widened. The bits of the exponent and the fraction, shifted to where f32 has them, are
/// the number divided by 2^112, subnormal ones too.
#[inline(always)]
unsafe fn widened(from: *const u16) -> [f32; 4] {
    // SAFETY: the caller's promise.
    let bits = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
    let mut floats = [0.0; 4];
    for (float, bits) in floats.iter_mut().zip(bits) {
        let size = f32::from_bits(u32::from(bits & 0x7FFF) << 13) * f32::from_bits(SCALE_BITS);
        *float = f32::from_bits(size.to_bits() | u32::from(bits >> 15) << 31);
    }
    floats
}

/// 2^112 in f32.
const SCALE_BITS: u32 = (112 + 127) << 23;

#[cfg(target_arch = "aarch64")]
impl Quads for Neon {
    #[inline(always)]
    unsafe fn lower_halves(words: Self::Words) -> Self::Words {
        // SAFETY: the caller's promise: the processor has the set.
        unsafe { vandq_u32(words, vdupq_n_u32(LOWER)) }
    }

    #[inline(always)]
    unsafe fn upper_halves(words: Self::Words) -> Self::Words {
        // SAFETY: as above.
        unsafe { vandq_u32(vshrq_n_u32::<4>(words), vdupq_n_u32(LOWER)) }
    }

    #[inline(always)]
    unsafe fn fp4_values(words: Self::Words) -> Self::Words {
        // SAFETY: as above; the table has 16 bytes.
        unsafe {
            let table = vld1q_u8(FP4_BYTES.as_ptr());
            vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(words)))
        }
    }

    #[inline(always)]
    unsafe fn floats(words: Self::Words) -> Self::Register {
        // SAFETY: as above.
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(words)) }
    }

    #[inline(always)]
    unsafe fn times(a: Self::Register, b: Self::Register) -> Self::Register {
        // SAFETY: as above.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::Register {
        // SAFETY: the caller's promise, as `Quads` states it.
        unsafe { Self::load(widened(from).as_ptr()) }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_f16_8(from: *const u16) -> __m256 {
    // SAFETY: the caller's promise. As `widened`: the instruction for it is a feature of its own (F16C).
    unsafe {
        let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        let size = _mm256_slli_epi32::<13>(_mm256_and_si256(bits, _mm256_set1_epi32(0x7FFF)));
        let scale = _mm256_set1_ps(f32::from_bits(SCALE_BITS));
        let size = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(size), scale));
        let sign = _mm256_slli_epi32::<31>(_mm256_srli_epi32::<15>(bits));
        _mm256_castsi256_ps(_mm256_or_si256(size, sign))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_f16_16(from: *const u16) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
}

/// A set by its registers and its intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_quads {
    (
        $name:ident, $register:ident, $words:ident,
        [$and:ident, $shift:ident, $set:ident, $floats:ident, $times:ident, $load_f16:ident],
        [$shuffle:ident, $spread:ident]
    ) => {
        impl Quads for $name {
            #[inline(always)]
            unsafe fn lower_halves(words: $words) -> $words {
                // SAFETY: the caller's promise, as `Quads` states it.
                unsafe { $and(words, $set(LOWER.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn upper_halves(words: $words) -> $words {
                // SAFETY: the caller's promise, as `Quads` states it.
                unsafe { $and($shift::<4>(words), $set(LOWER.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn fp4_values(words: $words) -> $words {
                // SAFETY: the caller's promise, as `Quads` states it; the table has 16 bytes.
                unsafe {
                    let table = _mm_loadu_si128(FP4_BYTES.as_ptr().cast());
                    $shuffle($spread(table), words)
                }
            }

            #[inline(always)]
            unsafe fn floats(words: $words) -> $register {
                // SAFETY: the caller's promise, as `Quads` states it.
                unsafe { $floats(words) }
            }

            #[inline(always)]
            unsafe fn times(a: $register, b: $register) -> $register {
                // SAFETY: the caller's promise, as `Quads` states it.
                unsafe { $times(a, b) }
            }

            #[inline(always)]
            unsafe fn load_f16(from: *const u16) -> $register {
                // SAFETY: the caller's promise, as `Quads` states it.
                unsafe { $load_f16(from) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_quads_of_16 {
    ($($name:ident),*) => {
        $(x86_quads!(
            $name,
            __m512,
            __m512i,
            [
                _mm512_and_si512,
                _mm512_srli_epi32,
                _mm512_set1_epi32,
                _mm512_cvtepi32_ps,
                _mm512_mul_ps,
                load_f16_16
            ],
            [_mm512_shuffle_epi8, _mm512_broadcast_i32x4]
        );)*
    };
}

#[cfg(target_arch = "x86_64")]
x86_quads!(
    Avx2,
    __m256,
    __m256i,
    [
        _mm256_and_si256,
        _mm256_srli_epi32,
        _mm256_set1_epi32,
        _mm256_cvtepi32_ps,
        _mm256_mul_ps,
        load_f16_8
    ],
    [_mm256_shuffle_epi8, _mm256_broadcastsi128_si256]
);
#[cfg(target_arch = "x86_64")]
x86_quads_of_16!(Avx512, Avx512Vnni, Avx512Bf16);
