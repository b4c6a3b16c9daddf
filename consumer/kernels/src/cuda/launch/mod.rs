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
