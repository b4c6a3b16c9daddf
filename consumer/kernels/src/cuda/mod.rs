//! The back-end for NVIDIA GPUs: tensors become addresses, a launch is made of them ([`launch`]), and the device's
//! stream takes it. Nothing waits here; the reader of a result does.
//!
//! Launches are plain data, which tests run on the processor, and so is the table of kernels' sources ([`sources`]).
//! All else drives a device, with the feature `cuda` alone: `backend` hands each operation to `operations` (one launch
//! each) or to a file of its own (`linear`, `linear_layer_norm`, `feed_forward`); `device` loads kernels and launches
//! them.

#[cfg(feature = "cuda")]
mod address;
#[cfg(feature = "cuda")]
pub(crate) mod backend;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod error;
#[cfg(feature = "cuda")]
mod feed_forward;
#[cfg(feature = "cuda")]
pub mod gpu;
pub(crate) mod launch;
#[cfg(feature = "cuda")]
mod linear;
#[cfg(feature = "cuda")]
mod linear_kernels;
#[cfg(feature = "cuda")]
mod linear_layer_norm;
#[cfg(feature = "cuda")]
mod operations;
#[cfg(feature = "cuda")]
mod sequences;
pub(crate) mod sources;
#[cfg(feature = "cuda")]
mod staging;

/// The widest hidden state, and the largest head, that there are kernels for on a GPU.
#[cfg(feature = "cuda")]
pub const GPU_LIMITS: (usize, usize) = (launch::HIDDEN_MAX as usize, launch::DIM_MAX as usize);
