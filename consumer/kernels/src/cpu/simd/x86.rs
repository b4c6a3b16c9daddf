//! x86-64: AVX2, AVX-512, and AVX-512 with the dot products of byte quads and of bf16 pairs.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512bh, __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_permute2x128_si256, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi16,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_epi32, _mm512_loadu_ps, _mm512_madd_epi16, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_shuffle_i32x4, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_srai_epi16,
    _mm512_srli_epi16, _mm512_storeu_epi32, _mm512_storeu_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use super::Target;

/// AVX2 with fused multiply-add: 16 registers of eight.
pub(crate) struct Avx2;
/// AVX-512 (F, VL, BW, DQ): 32 registers of sixteen.
pub(crate) struct Avx512;
/// AVX-512 with the dot product of byte quads.
pub(crate) struct Avx512Vnni;
/// AVX-512 with the dot products of byte quads and of bf16 pairs.
pub(crate) struct Avx512Bf16;

/// The upper half of a word: the second value of a pair, widened.
const SECOND: i32 = 0xFFFF_0000_u32 as i32;

/// Dot products of four bytes a word, as two of 16-bit halves: those at even positions and those at odd ones. Both are
/// exact.
#[inline(always)]
unsafe fn quads_8(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let even_a = _mm256_and_si256(a, _mm256_set1_epi16(0xFF));
        let even_b = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
        let even = _mm256_madd_epi16(even_a, even_b);
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
        _mm256_add_epi32(c, _mm256_add_epi32(even, odd))
    }
}

/// [`quads_8`] in registers of sixteen.
#[inline(always)]
unsafe fn quads_16(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let even_a = _mm512_and_si512(a, _mm512_set1_epi16(0xFF));
        let even_b = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
        let even = _mm512_madd_epi16(even_a, even_b);
        let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
        _mm512_add_epi32(c, _mm512_add_epi32(even, odd))
    }
}

/// [`quads_16`] by the instruction for it.
#[inline(always)]
unsafe fn quads_vnni(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_dpbusd_epi32(c, a, b) }
}

/// Dot products of pairs of bf16, widened: those at even positions and those at odd ones.
#[inline(always)]
unsafe fn pairs_8(a: __m256i, b: __m256i, c: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = |pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
        let second =
            |pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(SECOND)));
        _mm256_fmadd_ps(second(a), second(b), _mm256_fmadd_ps(first(a), first(b), c))
    }
}

/// [`pairs_8`] in registers of sixteen.
#[inline(always)]
unsafe fn pairs_16(a: __m512i, b: __m512i, c: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = |pairs| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
        let second =
            |pairs| _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(SECOND)));
        _mm512_fmadd_ps(second(a), second(b), _mm512_fmadd_ps(first(a), first(b), c))
    }
}

/// [`pairs_16`] by the instruction for it, which takes the bits under another type.
#[inline(always)]
unsafe fn pairs_bf16(a: __m512i, b: __m512i, c: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_dpbf16_ps(c, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b))
    }
}

/// Eight rows of eight words: pairs of rows interleave, then pairs of pairs, then halves of registers are exchanged.
#[inline(always)]
unsafe fn transpose_8(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [_mm256_set1_epi32(0); 8];
        for (index, words) in rows.iter_mut().enumerate() {
            *words = _mm256_loadu_si256(row(index).cast());
        }
        let mut quads = [_mm256_set1_epi32(0); 8];
        for group in 0..2 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * group + row]);
            let ab0 = _mm256_unpacklo_epi32(a, b);
            let ab1 = _mm256_unpackhi_epi32(a, b);
            let cd0 = _mm256_unpacklo_epi32(c, d);
            let cd1 = _mm256_unpackhi_epi32(c, d);
            quads[4 * group] = _mm256_unpacklo_epi64(ab0, cd0);
            quads[4 * group + 1] = _mm256_unpackhi_epi64(ab0, cd0);
            quads[4 * group + 2] = _mm256_unpacklo_epi64(ab1, cd1);
            quads[4 * group + 3] = _mm256_unpackhi_epi64(ab1, cd1);
        }
        for column in 0..4 {
            let upper = quads[column];
            let lower = quads[column + 4];
            let first = _mm256_permute2x128_si256::<0x20>(upper, lower);
            let second = _mm256_permute2x128_si256::<0x31>(upper, lower);
            _mm256_storeu_si256(to.add(column * stride).cast(), first);
            _mm256_storeu_si256(to.add((column + 4) * stride).cast(), second);
        }
    }
}

/// Sixteen rows of sixteen words: four unpacking steps as for eight, then quarters of registers are exchanged.
#[inline(always)]
unsafe fn transpose_16(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [_mm512_set1_epi32(0); 16];
        for (index, words) in rows.iter_mut().enumerate() {
            *words = _mm512_loadu_epi32(row(index).cast());
        }
        // quads[4 * g + c]: in each quarter q, column 4 * q + c of the rows of group g.
        let mut quads = [_mm512_set1_epi32(0); 16];
        for group in 0..4 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * group + row]);
            let ab0 = _mm512_unpacklo_epi32(a, b);
            let ab1 = _mm512_unpackhi_epi32(a, b);
            let cd0 = _mm512_unpacklo_epi32(c, d);
            let cd1 = _mm512_unpackhi_epi32(c, d);
            quads[4 * group] = _mm512_unpacklo_epi64(ab0, cd0);
            quads[4 * group + 1] = _mm512_unpackhi_epi64(ab0, cd0);
            quads[4 * group + 2] = _mm512_unpacklo_epi64(ab1, cd1);
            quads[4 * group + 3] = _mm512_unpackhi_epi64(ab1, cd1);
        }
        for column in 0..4 {
            let [a, b, c, d] = [0, 4, 8, 12].map(|group| quads[group + column]);
            let ab_low = _mm512_shuffle_i32x4::<0x44>(a, b);
            let ab_high = _mm512_shuffle_i32x4::<0xEE>(a, b);
            let cd_low = _mm512_shuffle_i32x4::<0x44>(c, d);
            let cd_high = _mm512_shuffle_i32x4::<0xEE>(c, d);
            let quarters: [__m512i; 4] = [
                _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0xDD>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
                _mm512_shuffle_i32x4::<0xDD>(ab_high, cd_high),
            ];
            for (quarter, values) in quarters.into_iter().enumerate() {
                _mm512_storeu_epi32(to.add((4 * quarter + column) * stride).cast(), values);
            }
        }
    }
}

/// A set by its registers and its intrinsics.
macro_rules! x86_target {
    (
        $name:ident, $register:ident, $words:ident, $width:literal, $many:literal,
        [$splat:ident, $load:ident, $store:ident, $fused:ident],
        [$splat_word:ident, $load_words:ident, $store_words:ident, $fused_quads:ident, $fused_pairs:ident],
        $transpose:ident
    ) => {
        impl Target for $name {
            type Register = $register;
            type Words = $words;
            const WIDTH: usize = $width;
            const MANY: bool = $many;

            #[inline(always)]
            fn mul_add(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            unsafe fn splat(value: f32) -> $register {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> $register {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(register: $register, to: *mut f32) {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $store(to, register) }
            }

            #[inline(always)]
            unsafe fn fused(a: $register, b: $register, c: $register) -> $register {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $fused(a, b, c) }
            }

            #[inline(always)]
            fn prefetch(at: *const u8) {
                // SAFETY: prefetching is SSE, which every x86-64 has; it reads nothing, so any address will do.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }

            #[inline(always)]
            fn prefetch_far(at: *const u8) {
                // SAFETY: prefetching is SSE, which every x86-64 has; it reads nothing, so any address will do.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
            }

            #[inline(always)]
            unsafe fn splat_word(word: u32) -> $words {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $splat_word(word as i32) }
            }

            #[inline(always)]
            unsafe fn load_words(from: *const u32) -> $words {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $load_words(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store_words(words: $words, to: *mut u32) {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $store_words(to.cast(), words) }
            }

            #[inline(always)]
            unsafe fn fused_quads(a: $words, b: $words, c: $words) -> $words {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $fused_quads(a, b, c) }
            }

            #[inline(always)]
            unsafe fn fused_pairs(a: $words, b: $words, c: $register) -> $register {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $fused_pairs(a, b, c) }
            }

            #[inline(always)]
            unsafe fn transpose(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize) {
                // SAFETY: the caller's promise, as `Target` states it.
                unsafe { $transpose(row, to, stride) }
            }
        }
    };
}

x86_target!(
    Avx2,
    __m256,
    __m256i,
    8,
    false,
    [_mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps],
    [_mm256_set1_epi32, _mm256_loadu_si256, _mm256_storeu_si256, quads_8, pairs_8],
    transpose_8
);
x86_target!(
    Avx512,
    __m512,
    __m512i,
    16,
    true,
    [_mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps],
    [_mm512_set1_epi32, _mm512_loadu_epi32, _mm512_storeu_epi32, quads_16, pairs_16],
    transpose_16
);
x86_target!(
    Avx512Vnni,
    __m512,
    __m512i,
    16,
    true,
    [_mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps],
    [_mm512_set1_epi32, _mm512_loadu_epi32, _mm512_storeu_epi32, quads_vnni, pairs_16],
    transpose_16
);
x86_target!(
    Avx512Bf16,
    __m512,
    __m512i,
    16,
    true,
    [_mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps],
    [_mm512_set1_epi32, _mm512_loadu_epi32, _mm512_storeu_epi32, quads_16, pairs_bf16],
    transpose_16
);
