//! From a packed batch of sequences to one row a sequence: a pure function of the batch, on the processor or a GPU.

pub(crate) mod batch;
pub(crate) mod cpu;
pub(crate) mod dense;
pub(crate) mod encoder;
#[cfg(feature = "cuda")]
pub(crate) mod gpu;
pub(crate) mod head;
pub(crate) mod layers;
pub(crate) mod per_token;
pub(crate) mod splade;
pub(crate) mod thread_pool;
pub(crate) mod token_vectors;
pub(crate) mod workspace;
