//! The baseline of any processor: registers of four, which compilers make of what they find.
#![allow(unsafe_code)]

use super::Target;

/// No instruction set in particular.
pub(crate) struct Portable;

impl Target for Portable {
    type Register = [f32; 4];
    type Words = [u32; 4];
    const WIDTH: usize = 4;
    const MANY: bool = false;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(register: [f32; 4], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(register) }
    }

    #[inline(always)]
    unsafe fn fused(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }

    #[inline(always)]
    unsafe fn splat_word(word: u32) -> [u32; 4] {
        [word; 4]
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> [u32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_words(words: [u32; 4], to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(words) }
    }

    #[inline(always)]
    unsafe fn fused_quads(a: [u32; 4], b: [u32; 4], c: [u32; 4]) -> [u32; 4] {
        let mut sums = c;
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            for (a, b) in a.to_le_bytes().into_iter().zip(b.to_le_bytes()) {
                let term = i32::from(a) * i32::from(b.cast_signed());
                *sum = sum.wrapping_add(term.cast_unsigned());
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn fused_pairs(a: [u32; 4], b: [u32; 4], c: [f32; 4]) -> [f32; 4] {
        let mut sums = c;
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            let (a0, a1) = pair(a);
            let (b0, b1) = pair(b);
            *sum += a0 * b0 + a1 * b1;
        }
        sums
    }

    #[inline(always)]
    unsafe fn transpose(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize) {
        for index in 0..Self::WIDTH {
            for column in 0..Self::WIDTH {
                // SAFETY: the caller's promise.
                unsafe {
                    let word = row(index).add(column).read_unaligned();
                    to.add(column * stride + index).write_unaligned(word);
                }
            }
        }
    }
}

/// Both bf16 values of a pair, widened, the one at the lower address first.
#[inline(always)]
fn pair(word: u32) -> (f32, f32) {
    let [a, b, c, d] = word.to_ne_bytes();
    let widen = |bytes| f32::from_bits(u32::from(u16::from_ne_bytes(bytes)) << 16);
    (widen([a, b]), widen([c, d]))
}
