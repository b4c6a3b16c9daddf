//! The one table of CUDA sources: which of them has a kernel, and, with the feature `cuda`, the module that `build.rs`
//! compiled of it. A source that is missing here fails a test, on machines without a GPU too.

/// A source of `consumer/kernels/cuda`.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file's name without its ending. All its kernels' names begin with it, except those of `linear_sm90a`.
    pub(crate) name: &'static str,
    /// The compiled module.
    #[cfg(feature = "cuda")]
    pub(crate) image: &'static [u8],
}

macro_rules! source {
    ($name:literal) => {
        Source {
            name: $name,
            #[cfg(feature = "cuda")]
            image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")),
        }
    };
}

/// The source whose kernels are for Hopper alone. Their names have `_sm90a_` in them.
const HOPPER: &str = "linear_sm90a";

/// Every source, in the order of names.
pub(crate) static SOURCES: [Source; 10] = [
    source!("add_layer_norm"),
    source!("bias_activation"),
    source!("embed_layer_norm"),
    source!("feed_forward"),
    source!("gate"),
    source!("linear_layer_norm"),
    source!("linear_sm90a"),
    source!("pool_normalize"),
    source!("rotary"),
    source!("varlen_attention"),
];

/// The source that defines a kernel, by the kernel's name; `None` where none can.
pub(crate) fn source_of(kernel: &str) -> Option<&'static Source> {
    let is_for_hopper = kernel.contains("_sm90a_");
    SOURCES.iter().find(|source| {
        if is_for_hopper { source.name == HOPPER } else { kernel.starts_with(source.name) }
    })
}
