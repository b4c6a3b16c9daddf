//! The operations: for each its formula, its parameters and operands, its checks, and a float64 reference that is its
//! specification. A [`backend::Backend`] computes them, those that only decoders need a
//! [`decoder_backend::DecoderBackend`].
//!
//! Nothing here knows a back-end: back-ends import operations, and `dispatch` above both chooses one by the device of
//! the tensors. `CONTRIBUTING.md`, "Add an operation", has the steps for a new one.

pub(crate) mod activation;
pub(crate) mod add_layer_norm;
pub(crate) mod add_rms_norm;
pub(crate) mod backend;
pub(crate) mod blocks;
pub(crate) mod clamped_gate;
pub(crate) mod cu_seqlens;
pub(crate) mod decoder_backend;
pub(crate) mod embed_layer_norm;
pub(crate) mod experts;
pub(crate) mod feed_forward;
pub(crate) mod gate;
pub(crate) mod head_linear;
pub(crate) mod latent_into_pages;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod linear_layer_norm;
pub(crate) mod mask;
pub(crate) mod operand;
pub(crate) mod paged_attention;
pub(crate) mod pages;
pub(crate) mod pool_normalize;
pub(crate) mod qkv_into_pages;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod route;
pub(crate) mod routes;
pub(crate) mod step_rows;
pub(crate) mod varlen_attention;
pub(crate) mod weight_rows;
