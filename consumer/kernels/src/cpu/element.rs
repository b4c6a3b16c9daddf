//! The number types of hidden states and weights: f32 and bf16. Sums are f32 in both.
#![allow(unsafe_code)]

use candle_core::{CpuStorage, WithDType};
use half::bf16;

use super::block::Block;
use super::scratch::{HasScratch, sized};
use super::simd::Target;

/// A number type that operations compute in.
pub(crate) trait Element:
    WithDType + HasScratch + Copy + Default + Send + Sync + 'static
{
    /// True where values are multiplied in pairs, one word each.
    const HAS_PAIRS: bool;
    /// Values that one step of a matrix product takes from each row.
    const STEP: usize = if Self::HAS_PAIRS { 2 } else { 1 };
    /// A register's worth of steps.
    type Vector<T: Target>: Copy;

    fn widen(self) -> f32;
    /// To the nearest, ties to even.
    fn narrow(value: f32) -> Self;

    /// One step's values in every lane.
    ///
    /// # Safety
    /// As for the functions of [`Target`]; `STEP` values can be read at `from`.
    unsafe fn splat<T: Target>(from: *const Self) -> Self::Vector<T>;

    /// # Safety
    /// As above; `T::WIDTH * STEP` values can be read at `from`.
    unsafe fn load<T: Target>(from: *const Self) -> Self::Vector<T>;

    /// # Safety
    /// As above.
    unsafe fn fused<T: Target>(
        a: Self::Vector<T>,
        b: Self::Vector<T>,
        c: T::Register,
    ) -> T::Register;

    /// The block itself where values are f32, so that sums can be written to it as they are.
    fn sums(block: Block<'_, Self>) -> Option<Block<'_, f32>>;

    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Element for f32 {
    const HAS_PAIRS: bool = false;
    type Vector<T: Target> = T::Register;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn splat<T: Target>(from: *const f32) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::splat(*from) }
    }

    #[inline(always)]
    unsafe fn load<T: Target>(from: *const f32) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::load(from) }
    }

    #[inline(always)]
    unsafe fn fused<T: Target>(a: T::Register, b: T::Register, c: T::Register) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::fused(a, b, c) }
    }

    #[inline(always)]
    fn sums(block: Block<'_, f32>) -> Option<Block<'_, f32>> {
        Some(block)
    }

    fn slice(storage: &CpuStorage) -> Option<&[f32]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
}

impl Element for bf16 {
    const HAS_PAIRS: bool = true;
    type Vector<T: Target> = T::Words;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without a branch, so that loops vectorise. A NaN keeps its upper bits and becomes a quiet one.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
        let kept = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
        Self::from_bits((kept >> 16) as u16)
    }

    #[inline(always)]
    unsafe fn splat<T: Target>(from: *const bf16) -> T::Words {
        // SAFETY: the caller's promise.
        unsafe { T::splat_word(from.cast::<u32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load<T: Target>(from: *const bf16) -> T::Words {
        // SAFETY: the caller's promise.
        unsafe { T::load_words(from.cast()) }
    }

    #[inline(always)]
    unsafe fn fused<T: Target>(a: T::Words, b: T::Words, c: T::Register) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::fused_pairs(a, b, c) }
    }

    #[inline(always)]
    fn sums(_: Block<'_, bf16>) -> Option<Block<'_, f32>> {
        None
    }

    fn slice(storage: &CpuStorage) -> Option<&[bf16]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [bf16]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }
}

/// Values of one number type for a matrix product that takes another.
pub(crate) trait As<P>: Sized {
    /// Runs `work` on the values as that type.
    fn with<R>(values: &[Self], work: impl FnOnce(&[P]) -> R) -> R;
}

impl<E: Element> As<E> for E {
    #[inline]
    fn with<R>(values: &[E], work: impl FnOnce(&[E]) -> R) -> R {
        work(values)
    }
}

impl As<f32> for bf16 {
    fn with<R>(values: &[bf16], work: impl FnOnce(&[f32]) -> R) -> R {
        f32::with_scratch(|scratch| {
            let wide = sized(&mut scratch.floats, values.len());
            for (wide, value) in wide.iter_mut().zip(values) {
                *wide = value.widen();
            }
            work(wide)
        })
    }
}

/// Narrows `sums` to `out`.
#[inline(always)]
pub(crate) fn store<E: Element>(sums: &[f32], out: &mut [E]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = E::narrow(*sum);
    }
}

/// Runs `$body` with `$E` standing for the number type that `$dtype` names.
macro_rules! by_dtype {
    ($dtype:expr, |$element:ident| $body:expr) => {
        match $dtype {
            candle_core::DType::BF16 => {
                type $element = half::bf16;
                $body
            }
            _ => {
                type $element = f32;
                $body
            }
        }
    };
}
pub(crate) use by_dtype;
