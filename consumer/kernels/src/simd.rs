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

    /// Every set of this processor, narrowest first.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let best = Self::best();
        let mut sets = vec![Self(IsaKind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if best.0 == IsaKind::Avx512 {
                sets.push(Self(IsaKind::Avx2));
            }
        }
        if !sets.contains(&best) {
            sets.push(best);
        }
        sets
    }

    pub(crate) fn kind(self) -> IsaKind {
        self.0
    }
}

/// What a loop's body needs to know of the instruction set that it is compiled for.
pub(crate) trait Target {
    /// True where there are 32 registers of 16 values: products may keep larger tiles in registers.
    const WIDE: bool = false;

    /// `a * b + c`, fused where the set has the instruction. (Where it has none, `mul_add` is a slow call.)
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

pub(crate) struct Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx512;

impl Target for Portable {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // AArch64 always has the fused instruction.
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }
}

#[cfg(target_arch = "x86_64")]
impl Target for Avx2 {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
impl Target for Avx512 {
    const WIDE: bool = true;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

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
