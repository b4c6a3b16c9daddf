//! Launches of the CUDA kernels: which one, over what grid, with which arguments. Plain data, the same whether a device
//! runs them or, in tests, the executor that runs them on the processor.
//!
//! `P` is what stands for an address on the device. Sizes are checked before, by the operations.

mod attention;
mod elementwise;
mod hopper;
mod rows;
mod whole_rows;

use std::fmt;

#[cfg(feature = "cuda")]
pub(crate) use self::attention::DIM_MAX;
pub(crate) use self::attention::{Attention, Tiles};
pub(crate) use self::elementwise::{bias_activation, gate, rotary};
pub(crate) use self::hopper::{HopperLinear, HopperLinearLayerNorm};
pub(crate) use self::rows::{Embedding, HIDDEN_MAX, Normalized, Pooled, finish_word};
pub(crate) use self::whole_rows::{FeedForward, LinearLayerNorm};

/// Threads of a warp.
const WARP: u32 = 32;
/// Values of 16 bytes.
const VECTOR: u32 = 8;

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
    /// Blocks in a row, or nothing where there is nothing to do.
    fn new(
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

/// The source that has a kernel, without its ending.
pub(crate) fn source(kernel: &str) -> &str {
    const SOURCES: [&str; 6] = [
        "embed_layer_norm",
        "feed_forward",
        "layer_norm",
        "linear_layer_norm",
        "pool_normalize",
        "varlen_attention",
    ];
    if kernel.contains("_sm90a_") {
        return "linear_sm90a";
    }
    SOURCES.into_iter().find(|source| kernel.starts_with(source)).unwrap_or("elementwise")
}

/// Bytes of shared arrays, each of which begins at a multiple of 16.
fn shared_bytes(arrays: &[u32]) -> u32 {
    arrays.iter().map(|bytes| bytes.next_multiple_of(16)).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::source;

    #[test]
    fn every_kernel_is_found_in_its_source() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let text = |name: &str| fs::read_to_string(folder.join(format!("{name}.cu"))).unwrap();
        for kernel in [
            "bias_activation_bf16",
            "gate_f16",
            "rotary_bf16",
            "embed_layer_norm_bf16_2",
            "layer_norm_f16_1",
            "feed_forward_bf16_384",
            "linear_layer_norm_f16_768",
            "linear_layer_norm_sm90a_bf16",
            "linear_gelu_sm90a_f16",
            "linear_sm90a_f16",
            "pool_normalize_bf16",
            "varlen_attention_f16_32_4",
        ] {
            let stem = kernel.split("_bf16").next().and_then(|stem| stem.split("_f16").next());
            let stem = stem.unwrap().trim_end_matches("_sm90a");
            assert!(text(source(kernel)).contains(stem), "{kernel}");
        }
    }
}
