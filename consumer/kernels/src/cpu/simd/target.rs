//! An instruction set as the loops see it: registers, and what is done with them.
#![allow(unsafe_code)]

/// An instruction set that code is compiled for. Only `dispatched!` names the sets, inside functions compiled for them,
/// so code that is generic over `Target` runs only where it may.
///
/// # Safety
/// Of all its unsafe functions: the processor has the set, and pointers reach as far as is said.
pub(crate) trait Target {
    /// A vector register of f32.
    type Register: Copy;
    /// A vector register of as many words: pairs of bf16, quads of bytes, or integers.
    type Words: Copy;
    /// Values in a register.
    const WIDTH: usize;
    /// True where there are 32 registers instead of 16.
    const MANY: bool;

    /// `a * b + c`, fused where the set has the instruction. (Where it has none, `mul_add` is a slow call.)
    fn mul_add(a: f32, b: f32, c: f32) -> f32;

    /// A register full of one value.
    unsafe fn splat(value: f32) -> Self::Register;

    /// `WIDTH` values from `from` on.
    unsafe fn load(from: *const f32) -> Self::Register;

    /// `WIDTH` values to `to` and after.
    unsafe fn store(register: Self::Register, to: *mut f32);

    /// `a * b + c` in each lane.
    unsafe fn fused(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;

    /// Prefetches the cache line at `at` into L1 cache. A hint: `at` is never dereferenced and may be out of bounds.
    #[inline(always)]
    fn prefetch(at: *const u8) {
        let _ = at;
    }

    /// As [`Self::prefetch`], into L2 cache.
    #[inline(always)]
    fn prefetch_far(at: *const u8) {
        let _ = at;
    }

    /// A register full of one word.
    unsafe fn splat_word(word: u32) -> Self::Words;

    /// `WIDTH` words from `from` on.
    unsafe fn load_words(from: *const u32) -> Self::Words;

    /// `WIDTH` words to `to` and after.
    unsafe fn store_words(words: Self::Words, to: *mut u32);

    /// `c` and the dot product of the four bytes of `a`, without a sign, with those of `b`, with one, in each lane:
    /// exact, as long as the sum is an i32.
    unsafe fn fused_quads(a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;

    /// `c + a.0 * b.0 + a.1 * b.1` in each lane, summed in f32.
    unsafe fn fused_pairs(a: Self::Words, b: Self::Words, c: Self::Register) -> Self::Register;

    /// `WIDTH` rows of `WIDTH` words, each row where `row` says, become columns of as many rows from `to` on, that
    /// lie `stride` words apart.
    unsafe fn transpose(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize);
}
