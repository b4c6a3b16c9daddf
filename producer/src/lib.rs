//! The client library: submits jobs, waits for their outcomes, looks at the fleet, and pulls models.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod client;
pub mod pull;

pub use client::{
    Client, ClientError, DeadLetter, DeadLetters, HeldUp, Kept, LetterFilter, LetterInfo,
    ModelInfo, QueueInfo, Queues, ReplayError, SubmitError, WaitError, WhenFull,
};
pub use forebay_schemas::{EmbedParams, Job, JobId, Lane, ModelId, Outcome, Output, State, Work};

/// What only the targets in `fuzz/` see of this crate: its parsers of outside bytes.
#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod fuzzing {
    pub use crate::pull::fuzzing::*;
}
