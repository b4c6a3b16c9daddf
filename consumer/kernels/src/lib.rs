//! Fused operations on packed tokens: what an encoder needs between its matrices, with the bytes moved once.
//!
//! Each operation is a struct whose fields are its parameters. `forward` takes the tensors, checks every shape with
//! a typed error, and runs it as a candle in-place operation on an output of its own; `forward_into` writes an output
//! that the caller keeps from batch to batch. The processor's path is the specification, and fast: loops are
//! compiled for AVX-512 with and without bf16 products, AVX2, NEON and the baseline, and chosen at run time. Work is
//! spread over the rayon pool that the caller is in, or stays on its thread ([`alone`]).
//!
//! Batches are packed: the tokens of all sequences lie end to end and [`CuSeqlens`] says where each begins,
//! so nothing is padded and no operation can mix two sequences by mistake. Hidden states are contiguous, f32 or
//! bf16; biases, scales and shifts are f32, and so is every sum. What comes out for a sequence does not depend, by one
//! bit, on its neighbours or on the number of threads.

// Loops are compiled for an instruction set by being inlined into a function that enables it (`simd`).
#![allow(clippy::inline_always)]

mod activation;
mod add_layer_norm;
mod block;
mod cu_seqlens;
#[cfg(feature = "cuda")]
mod cuda;
mod element;
mod embed_layer_norm;
mod error;
mod gate;
mod grid;
#[cfg(any(test, feature = "cuda"))]
mod launch;
mod layer_norm;
mod linear;
mod math;
mod operand;
mod parallel;
mod pool_normalize;
mod prefers;
mod product;
mod quantized;
mod rotary;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod varlen_attention;
mod whole_rows;

pub use activation::Activation;
pub use add_layer_norm::AddLayerNorm;
pub use cu_seqlens::CuSeqlens;
pub use embed_layer_norm::EmbedLayerNorm;
pub use error::KernelError;
pub use gate::Gate;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use parallel::alone;
pub use pool_normalize::{Finish, PoolNormalize, Pooling};
pub use prefers::prefers_bf16;
pub use rotary::Rotary;
pub use varlen_attention::{Mask, VarlenAttention};
pub use whole_rows::{FeedForward, LinearThenNorm};

#[cfg(feature = "cuda")]
pub use cuda::gpu;

/// The widest hidden state, and the largest head, that there are kernels for on a GPU.
#[cfg(feature = "cuda")]
pub const GPU_LIMITS: (usize, usize) = (launch::HIDDEN_MAX as usize, launch::DIM_MAX as usize);
