//! A launch as plain data, and the units that kernels count in.

use std::fmt;

/// Threads of a warp.
pub(super) const WARP: u32 = 32;
/// Values of 16 bytes.
pub(super) const VECTOR: u32 = 8;

/// The number types that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Bf16,
    F16,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Argument<P> {
    /// An address.
    Pointer(P),
    /// No address: the operand is not there.
    Null,
    /// A count or an index.
    U32(u32),
    /// A number.
    F32(f32),
}

impl<P> From<Option<P>> for Argument<P> {
    fn from(pointer: Option<P>) -> Self {
        pointer.map_or(Self::Null, Self::Pointer)
    }
}

/// One launch. The grid has at least one block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Launch<P> {
    /// As the sources name it.
    pub(crate) kernel: String,
    /// Blocks along x and y.
    pub(crate) grid: [u32; 2],
    /// Threads a block.
    pub(crate) threads: u32,
    /// Shared memory a block.
    pub(crate) shared_bytes: u32,
    /// In the kernel's order.
    pub(crate) arguments: Vec<Argument<P>>,
}

impl<P> Launch<P> {
    /// Blocks in a row; `None` where there is nothing to do.
    pub(super) fn new(
        kernel: String,
        blocks: u32,
        threads: u32,
        shared_bytes: u32,
        arguments: Vec<Argument<P>>,
    ) -> Option<Self> {
        let launch = Self { kernel, grid: [blocks, 1], threads, shared_bytes, arguments };
        (blocks > 0).then_some(launch)
    }
}

/// Bytes of shared arrays, each of which begins at a multiple of 16.
pub(super) fn shared_bytes(arrays: &[u32]) -> u32 {
    arrays.iter().map(|bytes| bytes.next_multiple_of(16)).sum()
}
