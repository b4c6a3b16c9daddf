//! Launches of the CUDA kernels: which one, over what grid, with which arguments. Plain data, equal whether a device
//! runs them or, in tests, the executor that runs them on the processor.
//!
//! `P` is what stands for an address on the device. Sizes are checked before, by the operations.

mod add_layer_norm;
mod bias_activation;
mod description;
mod elementwise;
mod embed_layer_norm;
mod feed_forward;
mod gate;
mod linear_layer_norm;
mod linear_sm90a;
mod pool_normalize;
mod rotary;
mod rows;
mod varlen_attention;
mod whole_rows;

pub(crate) use self::add_layer_norm::AddLayerNorm;
pub(crate) use self::bias_activation::bias_activation;
pub(crate) use self::description::{Argument, Half, Launch};
pub(crate) use self::embed_layer_norm::EmbedLayerNorm;
pub(crate) use self::feed_forward::FeedForward;
pub(crate) use self::gate::gate;
pub(crate) use self::linear_layer_norm::LinearLayerNorm;
pub(crate) use self::linear_sm90a::{LinearLayerNormSm90a, LinearSm90a};
pub(crate) use self::pool_normalize::{PoolNormalize, finish_word};
pub(crate) use self::rotary::rotary;
pub(crate) use self::rows::HIDDEN_MAX;
#[cfg(feature = "cuda")]
pub(crate) use self::varlen_attention::DIM_MAX;
pub(crate) use self::varlen_attention::{Tiles, VarlenAttention};

/// The name of the source that has a kernel, without its ending.
pub(crate) fn source(kernel: &str) -> &str {
    const SOURCES: [&str; 9] = [
        "add_layer_norm",
        "bias_activation",
        "embed_layer_norm",
        "feed_forward",
        "gate",
        "linear_layer_norm",
        "pool_normalize",
        "rotary",
        "varlen_attention",
    ];
    if kernel.contains("_sm90a_") {
        return "linear_sm90a";
    }
    SOURCES.into_iter().find(|source| kernel.starts_with(source)).unwrap_or(kernel)
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
            "add_layer_norm_f16_1",
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
