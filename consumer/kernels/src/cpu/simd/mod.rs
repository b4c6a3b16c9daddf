//! Instruction sets: loops are written once in plain Rust, compiled for each set, and chosen at run time.
//!
//! The compiler vectorises a loop for the features of the function that it ends up in. So a loop's body is
//! an `#[inline(always)]` function, generic over a [`Target`], and [`dispatched!`] makes one function a
//! target around it, each with its own `#[target_feature]`.
#![allow(unsafe_code)]

mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod quads;
mod target;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use self::isa::{Isa, IsaKind, multiplies_bf16};
#[cfg(target_arch = "aarch64")]
pub(crate) use self::neon::Neon;
pub(crate) use self::portable::Portable;
pub(crate) use self::quads::Quads;
pub(crate) use self::target::Target;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86::{Avx2, Avx512, Avx512Bf16, Avx512Vnni};

/// `dispatched! { /// docs  fn name<E>(arg: Type, …) = body; }` makes `fn name<E: Element>(isa: Isa, arg:
/// Type, …)`, which runs `body::<T: Target, E>(arg, …)` compiled for the instruction set that `isa` names. There may
/// be more number types than one; the first is the one that is multiplied.
macro_rules! dispatched {
    (
        @compiled $set:ident, $features:literal, $target:ident,
        <$($element:ident),+>($($arg:ident: $type:ty),*) = $body:ident
    ) => {
        #[target_feature(enable = $features)]
        fn $set<$($element: $crate::cpu::element::Element),+>($($arg: $type),*) {
            $body::<$crate::cpu::simd::$target, $($element),+>($($arg),*);
        }
    };
    (
        $(#[$meta:meta])*
        fn $name:ident<$first:ident $(, $more:ident)*>($($arg:ident: $type:ty),* $(,)?) = $body:ident;
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        fn $name<$first: $crate::cpu::element::Element $(, $more: $crate::cpu::element::Element)*>(
            isa: $crate::cpu::simd::Isa,
            $($arg: $type),*
        ) {
            use $crate::cpu::simd::{IsaKind, dispatched};
            #[cfg(target_arch = "x86_64")]
            dispatched!(
                @compiled avx512_bf16, "avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma", Avx512Bf16,
                <$first $(, $more)*>($($arg: $type),*) = $body
            );
            #[cfg(target_arch = "x86_64")]
            dispatched!(
                @compiled avx512, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma", Avx512,
                <$first $(, $more)*>($($arg: $type),*) = $body
            );
            #[cfg(target_arch = "x86_64")]
            dispatched!(
                @compiled avx2, "avx2,fma", Avx2,
                <$first $(, $more)*>($($arg: $type),*) = $body
            );
            #[cfg(target_arch = "aarch64")]
            dispatched!(
                @compiled neon, "neon", Neon,
                <$first $(, $more)*>($($arg: $type),*) = $body
            );
            match isa.kind() {
                IsaKind::Portable => $body::<$crate::cpu::simd::Portable, $first $(, $more)*>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where its features were detected.
                IsaKind::Avx512Bf16 if $first::HAS_PAIRS => unsafe {
                    avx512_bf16::<$first $(, $more)*>($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; the wider set holds the narrower one.
                IsaKind::Avx512Bf16 | IsaKind::Avx512Vnni | IsaKind::Avx512 => unsafe {
                    avx512::<$first $(, $more)*>($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                IsaKind::Avx2 => unsafe {
                    avx2::<$first $(, $more)*>($($arg),*)
                },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                IsaKind::Neon => unsafe {
                    neon::<$first $(, $more)*>($($arg),*)
                },
            }
        }
    };
}
pub(crate) use dispatched;
