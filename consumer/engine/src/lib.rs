//! The engine: models over fused operations. Texts go in, vectors or scores come out; it knows nothing of queues.
//!
//! [`load`] reads a model folder in the Hugging Face / sentence-transformers layout and gives a
//! [`Model`]: a [`Tokenizer`] that any thread may use, and an [`Encoder`] that one thread drives.
//! Batches are packed (see [`PackedBatch`]): sequences lie end to end and nothing is padded, so the
//! work of a batch is exactly its tokens.
//!
//! ```no_run
//! use forebay_engine::{Finish, LoadOptions, PackedBatch, load};
//!
//! # fn main() -> Result<(), forebay_engine::EngineError> {
//! let mut model = load("models/all-minilm-l6-v2".as_ref(), &LoadOptions::default())?;
//! let mut batch = PackedBatch::new();
//! for text in ["water in a pool", "gates at the turbine"] {
//!     batch.push(&model.tokenizer.encode(text)?.ids, Finish::default());
//! }
//! let rows = model.encoder.compute(&batch)?;
//! assert_eq!(rows.row(1).len(), model.info.dim);
//! # Ok(())
//! # }
//! ```

mod batch;
mod device;
mod encoder;
mod error;
mod folder;
#[cfg(feature = "cuda")]
mod gpu;
mod head;
mod model;
mod models;
mod options;
mod team;
mod tokenizer;
mod weights;
mod wordpiece;
mod workspace;

pub use batch::{PackedBatch, Rows};
pub use device::{Gpu, GpuMemory};
pub use error::EngineError;
pub use forebay_kernels::{Finish, Pooling};

pub use model::{Encoder, Model, ModelInfo, ModelTask, Pending, load};
pub use options::{DType, Device, LoadOptions};
pub use tokenizer::{FirstOfPairs, Tokenizer, Tokens};
