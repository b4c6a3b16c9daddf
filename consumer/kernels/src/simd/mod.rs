//! Instruction sets: loops are written once in plain Rust, compiled for each set, and chosen at run time.
//!
//! The compiler vectorises a loop for the features of the function that it ends up in. So a loop's body is
//! an `#[inline(always)]` function, generic over a [`Target`], and [`dispatched!`] makes one function a
//! target around it, each with its own `#[target_feature]`.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Avx512Bf16, Avx512Vnni};

/// An instruction set that this processor was seen to have. It cannot be made in any other way, which is
/// what makes calling the code compiled for it sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(IsaKind);

/// The instruction sets that loops are compiled for, each holding those before it of its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsaKind {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

impl Isa {
    /// The widest set of this processor. Detection is cached by the standard library: a few loads.
    pub(crate) fn best() -> Self {
        #[cfg(test)]
        if let Some(forced) = FORCED.get() {
            return forced;
        }
        Self::detect()
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        Self(match (has_avx2, has_avx512) {
            (true, true) => match is_x86_feature_detected!("avx512vnni") {
                true if is_x86_feature_detected!("avx512bf16") => IsaKind::Avx512Bf16,
                true => IsaKind::Avx512Vnni,
                false => IsaKind::Avx512,
            },
            (true, false) => IsaKind::Avx2,
            (false, _) => IsaKind::Portable,
        })
    }

    #[cfg(target_arch = "aarch64")]
    fn detect() -> Self {
        let has_neon = std::arch::is_aarch64_feature_detected!("neon");
        Self(if has_neon { IsaKind::Neon } else { IsaKind::Portable })
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detect() -> Self {
        Self(IsaKind::Portable)
    }

    /// Runs a test once for every set of this processor: [`Isa::best`] gives that set meanwhile.
    #[cfg(test)]
    pub(crate) fn each(mut test: impl FnMut()) {
        let all = [
            IsaKind::Portable,
            #[cfg(target_arch = "aarch64")]
            IsaKind::Neon,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512Bf16,
        ];
        let best = Self::detect().0;
        let last = all.iter().position(|kind| *kind == best).unwrap_or_default();
        for kind in &all[..=last] {
            FORCED.set(Some(Self(*kind)));
            test();
        }
        FORCED.set(None);
    }

    pub(crate) fn kind(self) -> IsaKind {
        self.0
    }

    /// Whether quads of bytes are multiplied by an instruction of their own.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn multiplies_quads(self) -> bool {
        matches!(self.0, IsaKind::Avx512Vnni | IsaKind::Avx512Bf16)
    }
}

/// Whether this processor multiplies bf16 with an instruction of its own, which is not to say faster than f32.
pub(crate) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Isa::detect().0 == IsaKind::Avx512Bf16;
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[cfg(test)]
thread_local! {
    /// The set that tests on this thread force; operations choose theirs on the thread that calls them.
    static FORCED: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

/// What code needs to know of the instruction set that it is compiled for. Only [`dispatched!`] names the
/// sets, inside functions compiled for them, so code that is generic over `Target` runs only where it may.
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

    /// `a * b + c` in each place.
    unsafe fn fused(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;

    /// Asks for what `at` points to, which need not exist.
    #[inline(always)]
    fn prefetch(at: *const u8) {
        let _ = at;
    }

    /// The same, into the second cache.
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

    /// `c` and the products of the four bytes of `a`, without a sign, with those of `b`, with one, in each place: exact,
    /// as long as the sum is an i32.
    unsafe fn fused_quads(a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;

    /// `c + a.0 * b.0 + a.1 * b.1` in each place, summed in f32.
    unsafe fn fused_pairs(a: Self::Words, b: Self::Words, c: Self::Register) -> Self::Register;

    /// `WIDTH` rows of `WIDTH` words, each row where `row` says, become columns of as many rows from `to` on, that
    /// lie `stride` words apart.
    unsafe fn transpose(row: impl Fn(usize) -> *const u32, to: *mut u32, stride: usize);
}

/// `dispatched! { /// docs  fn name<E>(arg: Type, …) = body; }` makes `fn name<E: Element>(isa: Isa, arg:
/// Type, …)`, which runs `body::<T: Target, E>(arg, …)` compiled for the instruction set that `isa` names. There may
/// be more number types than one; the first is the one that is multiplied.
macro_rules! dispatched {
    (@compiled $set:ident, $features:literal, $target:ident, <$($element:ident),+>($($arg:ident: $type:ty),*) = $body:ident) => {
        #[target_feature(enable = $features)]
        fn $set<$($element: $crate::element::Element),+>($($arg: $type),*) {
            $body::<$crate::simd::$target, $($element),+>($($arg),*);
        }
    };
    ($(#[$meta:meta])* fn $name:ident<$first:ident $(, $more:ident)*>($($arg:ident: $type:ty),* $(,)?) = $body:ident;) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        fn $name<$first: $crate::element::Element $(, $more: $crate::element::Element)*>(
            isa: $crate::simd::Isa,
            $($arg: $type),*
        ) {
            use $crate::simd::{IsaKind, dispatched};
            #[cfg(target_arch = "x86_64")]
            dispatched!(@compiled avx512_bf16, "avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma", Avx512Bf16, <$first $(, $more)*>($($arg: $type),*) = $body);
            #[cfg(target_arch = "x86_64")]
            dispatched!(@compiled avx512, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma", Avx512, <$first $(, $more)*>($($arg: $type),*) = $body);
            #[cfg(target_arch = "x86_64")]
            dispatched!(@compiled avx2, "avx2,fma", Avx2, <$first $(, $more)*>($($arg: $type),*) = $body);
            #[cfg(target_arch = "aarch64")]
            dispatched!(@compiled neon, "neon", Neon, <$first $(, $more)*>($($arg: $type),*) = $body);
            match isa.kind() {
                IsaKind::Portable => $body::<$crate::simd::Portable, $first $(, $more)*>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where its features were detected.
                IsaKind::Avx512Bf16 if $first::HAS_PAIRS => unsafe { avx512_bf16::<$first $(, $more)*>($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; the wider set holds the narrower one.
                IsaKind::Avx512Bf16 | IsaKind::Avx512Vnni | IsaKind::Avx512 => unsafe { avx512::<$first $(, $more)*>($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                IsaKind::Avx2 => unsafe { avx2::<$first $(, $more)*>($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                IsaKind::Neon => unsafe { neon::<$first $(, $more)*>($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatched;
