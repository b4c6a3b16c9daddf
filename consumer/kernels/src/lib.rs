//! Fused operations on packed tokens: what an encoder needs between its matrices, with the bytes moved once.
//!
//! Each operation is a struct whose fields are its parameters and whose `forward` takes the tensors, checks
//! every shape with a typed error, and runs it as a candle custom operation. The processor's path is the
//! specification, and fast: row loops are compiled for AVX-512, AVX2 and the baseline, and chosen at run
//! time. Work is spread over the rayon pool that the caller is in.
//!
//! Batches are packed: the tokens of all sequences lie end to end and [`CuSeqlens`] says where each begins,
//! so nothing is padded and no operation can mix two sequences by mistake. All operations take and give
//! contiguous f32.

// Loops are compiled for an instruction set by being inlined into a function that enables it (`simd`).
#![allow(clippy::inline_always)]

mod add_layer_norm;
mod block;
mod cu_seqlens;
mod embed_layer_norm;
mod error;
mod layer_norm;
mod linear;
mod math;
mod operand;
mod pool_normalize;
mod product;
mod simd;
#[cfg(test)]
mod tests;
mod varlen_attention;

pub use add_layer_norm::AddLayerNorm;
pub use cu_seqlens::CuSeqlens;
pub use embed_layer_norm::EmbedLayerNorm;
pub use error::KernelError;
pub use layer_norm::LayerNorm;
pub use linear::{Activation, Linear};
pub use pool_normalize::{Finish, PoolNormalize, Pooling};
pub use varlen_attention::VarlenAttention;
