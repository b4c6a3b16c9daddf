//! The contract as types: what travels through the queue, what is left at the result key, and what
//! everything is called.
//!
//! Nothing here does I/O or waits. A program that speaks to a Forebay fleet needs this crate alone to
//! read and write the wire; the other crates bring the connections.
//!
//! - [`names`]: model and job ids, lanes, queue and key names
//! - [`limits`]: the bounds that a job must keep
//! - [`job`]: the job, and [`decode`]: its bounded decoder
//! - [`generate`]: prompts, sampling and outputs of generation, [`tokens`]: what a running one has written so far, and
//!   [`json`]: JSON values in the order in which they came
//! - [`outcome`]: the terminal record of a job, [`output`]: its output by task, and [`pointer`]: where to find one that
//!   is too large for a reply
//! - [`vectors`]: sparse vectors and token vectors
//! - [`trace`]: the position of a job in a distributed trace
//! - [`usage`]: an entry of the usage stream
//! - [`worker`]: a worker's entry in the registry, and [`status`]: the autoscaler's report of the fleet
//! - [`topology`]: exchanges, queues and bindings as data
//! - [`codec`]: msgpack and JSON
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bounded;
mod came;
pub mod codec;
pub mod decode;
mod diagnosis;
pub mod export;
mod fields;
pub mod generate;
mod guide;
mod ids;
mod input;
pub mod job;
pub mod json;
mod key;
pub mod limits;
pub mod names;
pub mod outcome;
pub mod output;
mod params;
pub mod pointer;
pub mod status;
pub mod tokens;
pub mod topology;
pub mod trace;
pub mod usage;
mod validate;
pub mod vectors;
mod version;
mod wire;
pub mod worker;

pub use codec::{CodecError, ContentType};
pub use decode::{Refusal, decode_job};
pub use diagnosis::Head;
pub use generate::{
    FinishReason, GenerateParams, Likely, Message, Prompt, ResponseFormat, TokenLogprob, ToolCall,
};
pub use job::{EmbedParams, InputType, Job, RerankParams, SparseParams, Task, TokensParams, Work};
pub use json::Json;
pub use limits::Limits;
pub use names::{JobId, KeyId, Lane, ModelId, NameError, TenantId};
pub use outcome::{ErrorCode, JobError, Outcome, State, Timing, Unanswerable, Usage};
pub use output::{EmbedOutput, LabelScore, Output};
pub use pointer::ResultPointer;
pub use status::{DecisionReport, FleetStatus, PoolStatus};
pub use tokens::TokenChunk;
pub use trace::TraceContext;
pub use usage::UsageEntry;
pub use vectors::{SparseOutput, SparseVector, TokensOutput};
pub use version::{MESSAGE_TYPE, VERSION};
pub use worker::{
    CircuitState, GenerateRecord, GpuRecord, RemoteRecord, WorkerRecord, WorkerState,
};
