//! Instruction sets: row loops are written once in plain Rust, compiled for each set, and chosen at run time.
//!
//! The compiler vectorises a loop for the features of the function that it ends up in. So a loop's body is
//! an `#[inline(always)]` function, generic over a [`Target`], and [`dispatched!`] makes one function a
//! target around it, each with its own `#[target_feature]`.
#![allow(unsafe_code)]

/// An instruction set that this processor was seen to have. It cannot be made in any other way, which is
/// what makes calling the code compiled for it sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(IsaKind);

/// The instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsaKind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
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

    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if has_avx2 {
                return Self(if has_avx512 { IsaKind::Avx512 } else { IsaKind::Avx2 });
            }
        }
        Self(IsaKind::Portable)
    }

    /// Runs a test once for every set of this processor: [`Isa::best`] gives that set meanwhile.
    #[cfg(test)]
    pub(crate) fn each(mut test: impl FnMut()) {
        let mut sets = vec![Self(IsaKind::Portable)];
        #[cfg(target_arch = "x86_64")]
        match Self::detect().0 {
            IsaKind::Avx512 => sets.extend([Self(IsaKind::Avx2), Self(IsaKind::Avx512)]),
            IsaKind::Avx2 => sets.push(Self(IsaKind::Avx2)),
            IsaKind::Portable => {}
        }
        for set in sets {
            FORCED.set(Some(set));
            test();
        }
        FORCED.set(None);
    }

    pub(crate) fn kind(self) -> IsaKind {
        self.0
    }
}

#[cfg(test)]
thread_local! {
    /// The set that tests on this thread force; operations choose theirs on the thread that calls them.
    static FORCED: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

/// What code needs to know of the instruction set that it is compiled for. Only [`dispatched!`] names the
/// sets, inside functions compiled for them, so code that is generic over `Target` runs only where it may.
pub(crate) trait Target {
    /// A vector register.
    type Register: Copy;
    /// Values in a register.
    const WIDTH: usize;
    /// True where there are 32 registers instead of 16.
    const MANY: bool;

    /// `a * b + c`, fused where the set has the instruction. (Where it has none, `mul_add` is a slow call.)
    fn mul_add(a: f32, b: f32, c: f32) -> f32;

    /// A register full of one value.
    ///
    /// # Safety
    /// As for all of these: the processor has the set.
    unsafe fn splat(value: f32) -> Self::Register;

    /// # Safety
    /// `WIDTH` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self::Register;

    /// # Safety
    /// `WIDTH` values can be written at `to`.
    unsafe fn store(register: Self::Register, to: *mut f32);

    /// `a * b + c` in each place.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn fused(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;
}

/// The baseline of any processor: registers of four, as SSE2 and NEON have them.
pub(crate) struct Portable;

impl Target for Portable {
    type Register = [f32; 4];
    const WIDTH: usize = 4;
    const MANY: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // AArch64 always has the fused instruction.
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
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
        let [a0, a1, a2, a3] = a;
        let [b0, b1, b2, b3] = b;
        let [c0, c1, c2, c3] = c;
        [
            Self::mul_add(a0, b0, c0),
            Self::mul_add(a1, b1, c1),
            Self::mul_add(a2, b2, c2),
            Self::mul_add(a3, b3, c3),
        ]
    }
}

/// A set of x86-64 by its register and its four intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_target {
    ($name:ident, $register:ident, $width:literal, $many:literal, $splat:ident, $load:ident, $store:ident, $fused:ident) => {
        pub(crate) struct $name;

        impl Target for $name {
            type Register = std::arch::x86_64::$register;
            const WIDTH: usize = $width;
            const MANY: bool = $many;

            #[inline(always)]
            fn mul_add(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self::Register {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::Register {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$load(from) }
            }

            #[inline(always)]
            unsafe fn store(register: Self::Register, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$store(to, register) }
            }

            #[inline(always)]
            unsafe fn fused(
                a: Self::Register,
                b: Self::Register,
                c: Self::Register,
            ) -> Self::Register {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$fused(a, b, c) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86_target!(
    Avx2,
    __m256,
    8,
    false,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
x86_target!(
    Avx512,
    __m512,
    16,
    true,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps
);

/// `dispatched! { /// docs  fn name(arg: Type, …) = body; }` makes `fn name(isa: Isa, arg: Type, …)`, which
/// runs `body::<T: Target>(arg, …)` compiled for the instruction set that `isa` names.
macro_rules! dispatched {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:ident;) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        fn $name(isa: $crate::simd::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $type),*) {
                    $body::<$crate::simd::Avx512>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    $body::<$crate::simd::Avx2>($($arg),*);
                }
                match isa.kind() {
                    // SAFETY: an `Isa` of this kind exists only where its features were detected.
                    $crate::simd::IsaKind::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::IsaKind::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::IsaKind::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let $crate::simd::IsaKind::Portable = isa.kind();
            $body::<$crate::simd::Portable>($($arg),*);
        }
    };
}
pub(crate) use dispatched;
