//! The processor's back-end. Loops are compiled for AVX-512 with and without bf16 pairs, AVX2, NEON and the baseline,
//! and chosen at run time ([`simd`]); work is spread over the thread pool that the caller is in ([`parallel`]).
//!
//! One file an operation (`linear_layer_norm` and `feed_forward` have none: they are composed of others), over the
//! matrix product of [`gemm`], the functions of [`math`], each thread's [`scratch`] memory and the number types of
//! [`element`].

pub(crate) mod activation;
mod add_layer_norm;
mod add_rms_norm;
pub(crate) mod backend;
pub(crate) mod block;
mod clamped_gate;
pub(crate) mod element;
mod embed_layer_norm;
mod experts;
mod gate;
pub(crate) mod gemm;
mod latent_into_pages;
mod layer_norm;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod page;
mod paged_attention;
pub(crate) mod parallel;
mod pool_normalize;
pub(crate) mod prefers_bf16;
mod qkv_into_pages;
mod rms_norm;
mod rotary;
mod route;
mod rows;
pub(crate) mod scratch;
pub(crate) mod simd;
pub(crate) mod spin_pool;
pub(crate) mod storage;
mod varlen_attention;
