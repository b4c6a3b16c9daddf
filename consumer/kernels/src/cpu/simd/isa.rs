//! The instruction set of this processor, detected when the program runs.

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

    /// Whether it has an instruction for the dot product of byte quads.
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
