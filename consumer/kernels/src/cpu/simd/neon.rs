//! AArch64's NEON: 32 registers of four. bf16 is widened, which takes a shift and a mask a pair.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    float32x4_t, uint32x4_t, vaddq_u32, vandq_u32, vdupq_n_f32, vdupq_n_u32, vfmaq_f32,
    vget_high_s16, vget_low_s8, vget_low_s16, vget_low_u8, vld1q_f32, vld1q_u32, vmovl_high_s8,
    vmovl_high_u8, vmovl_s8, vmovl_u8, vmull_s16, vpaddq_s32, vreinterpretq_f32_u32,
    vreinterpretq_s8_u32, vreinterpretq_s16_u16, vreinterpretq_u8_u32, vreinterpretq_u32_s32,
    vreinterpretq_u32_u64, vreinterpretq_u64_u32, vshlq_n_u32, vst1q_f32, vst1q_u32, vtrn1q_u32,
    vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
};

use super::Target;

/// Every AArch64 processor that runs an operating system of ours.
pub(crate) struct Neon;

/// The first and the second values of pairs, in f32.
#[inline(always)]
unsafe fn widen(pairs: uint32x4_t) -> (float32x4_t, float32x4_t) {
    // SAFETY: the caller's promise: the processor has the set.
    unsafe {
        let first = vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs));
        let second = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF_0000)));
        (first, second)
    }
}

impl Target for Neon {
    type Register = float32x4_t;
    type Words = uint32x4_t;
    const WIDTH: usize = 4;
    const MANY: bool = true;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(register: float32x4_t, to: *mut f32) {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vst1q_f32(to, register) }
    }

    #[inline(always)]
    unsafe fn fused(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    unsafe fn splat_word(word: u32) -> uint32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vdupq_n_u32(word) }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> uint32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vld1q_u32(from) }
    }

    #[inline(always)]
    unsafe fn store_words(words: uint32x4_t, to: *mut u32) {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe { vst1q_u32(to, words) }
    }

    #[inline(always)]
    unsafe fn fused_quads(a: uint32x4_t, b: uint32x4_t, c: uint32x4_t) -> uint32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe {
            let a = vreinterpretq_u8_u32(a);
            let b = vreinterpretq_s8_u32(b);
            let a = [vmovl_u8(vget_low_u8(a)), vmovl_high_u8(a)].map(|a| vreinterpretq_s16_u16(a));
            let b = [vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b)];
            let first = vmull_s16(vget_low_s16(a[0]), vget_low_s16(b[0]));
            let second = vmull_s16(vget_high_s16(a[0]), vget_high_s16(b[0]));
            let third = vmull_s16(vget_low_s16(a[1]), vget_low_s16(b[1]));
            let fourth = vmull_s16(vget_high_s16(a[1]), vget_high_s16(b[1]));
            let sums = vpaddq_s32(vpaddq_s32(first, second), vpaddq_s32(third, fourth));
            vaddq_u32(c, vreinterpretq_u32_s32(sums))
        }
    }

    #[inline(always)]
    unsafe fn fused_pairs(a: uint32x4_t, b: uint32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe {
            let (a0, a1) = widen(a);
            let (b0, b1) = widen(b);
            vfmaq_f32(vfmaq_f32(c, a0, b0), a1, b1)
        }
    }

    #[inline(always)]
    unsafe fn transpose(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize) {
        // SAFETY: the caller's promise, as `Target` states it.
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|index| vld1q_u32(row(index)));
            let wide = |row: uint32x4_t| vreinterpretq_u64_u32(row);
            let ab0 = wide(vtrn1q_u32(a, b));
            let ab1 = wide(vtrn2q_u32(a, b));
            let cd0 = wide(vtrn1q_u32(c, d));
            let cd1 = wide(vtrn2q_u32(c, d));
            let columns = [
                vtrn1q_u64(ab0, cd0),
                vtrn1q_u64(ab1, cd1),
                vtrn2q_u64(ab0, cd0),
                vtrn2q_u64(ab1, cd1),
            ];
            for (index, column) in columns.into_iter().enumerate() {
                vst1q_u32(to.add(index * stride), vreinterpretq_u32_u64(column));
            }
        }
    }
}
