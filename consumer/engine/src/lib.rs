//! The engine: models over fused operations. Texts go in, vectors or scores come out; it knows nothing of queues.
//!
//! [`load`] reads a model folder in the Hugging Face / sentence-transformers layout and returns a [`Model`]: a
//! [`Tokenizer`] that all threads may share, and an [`Encoder`] that one thread drives. Batches are packed (see
//! [`PackedBatch`]): sequences lie end to end and nothing is padded, so the work of a batch is exactly its tokens.
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
//! let rows = model.engine.encoder()?.compute(&batch)?;
//! assert_eq!(rows.row(1).len(), model.info.dim);
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! Modules import only from those above them in this list.
//!
//! - `error`: [`EngineError`], the one error type of the crate.
//! - `load`: reads a model from disk and knows no architecture. `folder` finds the files (read by `files`) and reads
//!   the smaller ones with `pooling` and `tokenizer_config`, and for sparse and token vectors `per_token` and
//!   `token_reading`; `fields` takes fields out of a configuration and says which were not taken, `config` and `sizes`
//!   check them; `safetensors` and `gguf` read weights, `tensors` is the trait that both implement, `options` says on
//!   which device and in which number type to compute. A further file format of weights goes beside these.
//! - `device`: opens a device, measures its memory, and refuses a model that it cannot hold.
//! - `tokenizer`: texts to token ids. `wordpiece` is the fast path for tokenizers of BERT's kind; `gguf` makes a
//!   tokenizer of a GGUF's settings.
//! - `info`: [`ModelInfo`], the facts of a loaded model.
//! - `encode`: a batch to rows. `batch` packs sequences; `encoder` is the trait [`Encoder`], which `cpu` and `gpu`
//!   implement; `layers` is the trait that a family implements; `head` pools hidden states into vectors or scores;
//!   `per_token` is the encoder of sparse vectors (`splade`) and of `token_vectors`; `thread_pool` spreads a batch over
//!   worker threads; `workspace` keeps buffers from batch to batch.
//! - `families`: the encoder families, each a file with its configuration and its layers, and the dense decoders, which
//!   are one: `decoder` has the layers, `decoder_config` what differs among them, `decoder_rope` their rotations;
//!   `decoder_encoder` makes encoders of them.
//! - `generate`: tokens to more tokens, a step at a time. `generator` is the trait [`Generator`], which `cpu`
//!   implements; `pages` deals out the memory of sequences and finds common prefixes; `sample` picks tokens.
//! - `generator_model`: loads models that generate text.
//! - `per_token_model`: loads models of sparse and token vectors.
//! - `reranker`: what rerankers that are language models are asked, and the head that reads their answers.
//! - `model`: [`load`], which puts all of this together.
//!
//! # Adding an encoder family
//!
//! `CONTRIBUTING.md`, "Add a model family", has the steps.
//!
//! # Generation
//!
//! An [`Encoder`] is a pure function of a batch: nothing of a sequence stays in it from one call to the next. A model
//! that generates text keeps memory for each sequence over many steps, so it is a second trait beside it,
//! [`Generator`], and a [`Model`] holds one or the other as its [`Engine`].

mod device;
mod encode;
mod error;
mod families;
#[cfg(fuzzing)]
pub mod fuzzing;
mod generate;
mod generator_model;
mod info;
mod load;
mod model;
mod per_token_model;
mod reranker;
mod tokenizer;

pub use device::{Gpu, GpuMemory};
pub use encode::batch::{PackedBatch, Rows};
pub use encode::encoder::{Encoder, Pending};
pub use error::EngineError;
pub use forebay_kernels::Finish;
pub use generate::detokenize::Detokenizer;
pub use generate::generator::{
    Chunk, Generator, Keep, Opened, PendingPicks, Pick, Picks, Room, SequenceId, Step,
};
pub use generate::guide::{Guide, GuideError, Guided, Guides, Tokenize};
pub use generate::sample::{History, PickError, Picked, Sampling, TokenMask, pick};
pub use generate::stop::StopStrings;
pub use generate::template::{ChatInput, ChatTemplate, TemplateError};
pub use generate::tool_calls::{AnswerPart, ToolCall, ToolCalls, ToolFormat};
pub use info::{KindInfo, ModelInfo, ModelTask};
pub use load::fields::Ignored;
pub use load::generation::{GenerationInfo, Recommended};
pub use load::options::{DType, Device, LoadOptions};
pub use load::per_token::{SPARSE_VALUES_MAX, SpladePooling};
pub use load::pooling::Pooling;
pub use load::token_reading::InputType;
pub use model::{Engine, Model, load};
pub use tokenizer::vocabulary::Vocabulary;
pub use tokenizer::{FirstOfPairs, Tokenizer, Tokens};
