//! Fused operations on packed tokens: what encoders and decoders need between their matrices, with the bytes moved
//! once.
//!
//! Each operation is a struct whose fields are its parameters. `forward` takes the tensors, checks every shape with
//! a typed error, and computes on the tensors' device into a new output; `forward_into` writes an output that the
//! caller keeps from batch to batch. An operation's file in `ops` has its formula and its float64 reference; `cpu` and
//! `cuda` compute it, and `dispatch` chooses between them. Those of decoders alone (`dispatch::decoder`) run on the
//! processor and are refused on other devices. Work on the processor is spread over the rayon thread pool
//! that the caller is in, or stays on its thread ([`alone`]).
//!
//! Batches are packed: the tokens of all sequences lie end to end and [`CuSeqlens`] says where each begins,
//! so nothing is padded and no operation can mix two sequences by mistake. Hidden states are contiguous, f32 or
//! bf16 (on a GPU bf16 or f16); biases, scales and shifts are f32, and so is every sum.
//!
//! A sequence's result does not depend, by one bit, on its batch-mates or on the number of threads. Two exceptions on
//! GPUs may change its last bits: where cuBLAS computes a linear layer (on devices other than Hopper, or with sizes or
//! an activation that no kernel of ours takes), and on devices other than Hopper, which use a fused kernel for the
//! numbers of rows at which it was measured to be faster.

// Loops are compiled for an instruction set by being inlined into a function that enables it (`cpu::simd`).
#![allow(clippy::inline_always)]

mod cpu;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod dispatch;
mod error;
mod failure;
mod ops;
#[cfg(test)]
mod tests;

pub use cpu::parallel::{alone, for_each};
pub use cpu::prefers_bf16::prefers_bf16;
pub use cpu::spin_pool::SpinPool;
#[cfg(feature = "cuda")]
pub use cuda::GPU_LIMITS;
#[cfg(feature = "cuda")]
pub use cuda::gpu;
pub use error::KernelError;
pub use failure::DeviceFailure;
pub use ops::activation::Activation;
pub use ops::add_layer_norm::AddLayerNorm;
pub use ops::add_rms_norm::AddRmsNorm;
pub use ops::blocks::{BLOCK, FP4_DOUBLED, Fp4Block, Q4Block, Q8Block};
pub use ops::clamped_gate::{AnyGate, ClampedGate};
pub use ops::cu_seqlens::CuSeqlens;
pub use ops::embed_layer_norm::EmbedLayerNorm;
pub use ops::experts::{ExpertRows, Experts};
pub use ops::feed_forward::FeedForward;
pub use ops::gate::Gate;
pub use ops::head_linear::HeadLinear;
pub use ops::latent_into_pages::LatentIntoPages;
pub use ops::layer_norm::LayerNorm;
pub use ops::linear::Linear;
#[cfg(feature = "cuda")]
pub use ops::linear::LinearKernels;
pub use ops::linear_layer_norm::LinearLayerNorm;
pub use ops::mask::Mask;
pub use ops::paged_attention::PagedAttention;
pub use ops::pages::{PAGE_TOKENS, Pages};
pub use ops::pool_normalize::{Finish, PoolNormalize, Pooling};
pub use ops::qkv_into_pages::QkvIntoPages;
pub use ops::rms_norm::RmsNorm;
pub use ops::rotary::Rotary;
pub use ops::route::{Groups, Router, Scoring};
pub use ops::routes::Routes;
pub use ops::step_rows::{SequenceRows, StepRows};
pub use ops::varlen_attention::VarlenAttention;
