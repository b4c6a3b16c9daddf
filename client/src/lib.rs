//! The client library, with which Rust services submit jobs to a fleet and read their outcomes.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use forebay_client::{Client, Config, Job, Lane, Output};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // From `forebay.toml` and the FOREBAY_* variables.
//!     let config = Config::load(None)?.config;
//!     let client = Client::connect(&config)?;
//!     let job = Job::embed("all-minilm-l6-v2".parse()?, vec!["water in a pool".to_owned()]);
//!     let id = client.submit(job, Lane::Interactive).await?;
//!     let outcome = client.wait(&id, Duration::from_secs(30)).await?;
//!     match outcome.output {
//!         Some(Output::Embed(vectors)) => println!("{} vectors", vectors.count()),
//!         _ => println!("{}: {:?}", outcome.state, outcome.error),
//!     }
//!     client.close().await;
//!     Ok(())
//! }
//! ```
//!
//! All operations are methods of [`Client`]:
//!
//! - `submit.rs`: submitting jobs, which are checked here and confirmed by the broker; [`WhenFull`] chooses between
//!   failing and waiting for room: the backpressure of `backpressure.rs`
//! - `wait.rs`: outcomes of one job or of many, found by notification and by polling with growing pauses
//! - `follow.rs`: the tokens of a generation as they come
//! - `inspect.rs`: workers, models, queues and the autoscaler's status; cancelling a job
//! - `dead/`: browsing, replaying and discarding dead letters
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backpressure;
mod client;
mod dead;
mod error;
mod follow;
mod inspect;
mod routes;
mod submit;
mod token_notices;
mod wait;
mod waiter;

pub use backpressure::{HeldUp, WhenFull};
pub use client::Client;
pub use dead::{DeadLetter, DeadLetterFilter, DeadLetterInfo, DeadLetters, Kept, ReplayError};
pub use error::ClientError;
pub use follow::{Following, Progress};
pub use forebay_fabric::Config;
pub use forebay_schemas::{
    EmbedParams, FinishReason, GenerateParams, InputType, Job, JobId, Lane, Message, ModelId,
    Outcome, Output, Prompt, SparseOutput, SparseParams, SparseVector, State, TokenChunk,
    TokensOutput, TokensParams, TraceContext, Work,
};
pub use inspect::{ModelInfo, QueueInfo};
pub use submit::SubmitError;
pub use wait::{WaitError, Waited};
