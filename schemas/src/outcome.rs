//! The terminal record of a job: its output or error, the worker that wrote it, and how long it took.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError, ContentType},
    job::{Job, Task},
    names::JobId,
    output::Output,
    version::VERSION,
};

/// Results are written by the fleet, but to a store that others can write to: this bounds how deep they nest.
const DEPTH_MAX: usize = 32;

/// The terminal record at a job's result key, written once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Forebay result, version 1")]
pub struct Outcome {
    /// The contract's version: 1.
    pub v: u64,
    /// The job's id.
    pub id: JobId,
    /// The model as the job named it; absent when the job could not be read that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The task as the job named it; absent when the job could not be read that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The tenant that the job is accounted to, as the job named it; absent where it named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The job's metadata, unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How it ended.
    pub state: State,
    /// The output; absent unless the job succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// The error; absent when the job succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Tokens read and written.
    #[serde(default)]
    pub usage: Usage,
    /// Where the time went.
    #[serde(default)]
    pub timing: Timing,
    /// The worker or service that wrote this record.
    pub worker: String,
    /// How often the job was tried, this time included.
    pub attempts: u32,
    /// When this record was made, in Unix milliseconds.
    pub finished_at_ms: u64,
}

/// The answer to a message that names no job, and so has no result key: it goes to the message's `reply_to` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswerable {
    v: u64,
    state: State,
    error: JobError,
}

impl Unanswerable {
    /// The answer that says why.
    pub fn new(error: JobError) -> Self {
        Self { v: VERSION, state: State::Failed, error }
    }

    /// The bytes of the reply.
    pub fn encode(&self, content_type: ContentType) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, content_type)
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has an output.
    Succeeded,
    /// It has an error that says why.
    Failed,
    /// It was not computed in time.
    Expired,
    /// Its publisher cancelled it.
    Cancelled,
}

impl State {
    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a job did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The job is not what the contract says.
    InvalidRequest,
    /// The job is of a version that is not spoken here.
    UnsupportedVersion,
    /// No such model in this fleet.
    ModelNotFound,
    /// The model does not do this task, or no model does.
    TaskNotSupported,
    /// A text is longer than the model reads, and truncation was refused.
    InputTooLong,
    /// The body is longer than the limit.
    PayloadTooLarge,
    /// It was not computed in time.
    DeadlineExceeded,
    /// Its publisher cancelled it.
    Cancelled,
    /// It was tried as often as allowed.
    AttemptsExhausted,
    /// The model's output was not finite.
    NumericalError,
    /// It does not fit the device's memory, even alone.
    OutOfMemory,
    /// A fault of the fleet.
    Internal,
}

impl ErrorCode {
    /// The code's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedVersion => "unsupported_version",
            Self::ModelNotFound => "model_not_found",
            Self::TaskNotSupported => "task_not_supported",
            Self::InputTooLong => "input_too_long",
            Self::PayloadTooLarge => "payload_too_large",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::NumericalError => "numerical_error",
            Self::OutOfMemory => "out_of_memory",
            Self::Internal => "internal",
        }
    }

    /// The first of [`RETRY_STEPS`](crate::topology::RETRY_STEPS) that a job that failed this way waits for;
    /// `None` when another attempt would fail too, so that the error is the answer.
    pub fn first_retry_step(self) -> Option<usize> {
        match self {
            // The cause may have passed by the next moment.
            Self::Internal => Some(0),
            // Memory that another process holds takes time to be free again: half a minute at least.
            Self::OutOfMemory => Some(2),
            _ => None,
        }
    }

    /// Whether the same job may succeed when it is sent again.
    pub fn retryable(self) -> bool {
        self == Self::AttemptsExhausted || self.first_retry_step().is_some()
    }

    /// The state of a job that ended with this code.
    pub fn state(self) -> State {
        match self {
            Self::DeadlineExceeded => State::Expired,
            Self::Cancelled => State::Cancelled,
            _ => State::Failed,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error, for a program (`code`) and for a person (`message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message} ({code})")]
pub struct JobError {
    /// The kind of error, for a program.
    pub code: ErrorCode,
    /// The cause and the remedy, for a person.
    pub message: String,
    /// Whether the same job may succeed when it is sent again.
    pub retryable: bool,
    /// The index of the input at fault, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl JobError {
    /// An error of the job as a whole.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        Self { code, message, retryable: code.retryable(), index: None }
    }

    /// The job is not what the contract says.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// Attributes the error to the input at `index`.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

/// The most characters of a message: it may quote untrusted text, and goes into logs, headers and records.
const MESSAGE_CHARS_MAX: usize = 600;
/// How many of them come from the message's end, which has the remedy.
const MESSAGE_CHARS_TAIL: usize = 250;

/// The message with its middle left out, if it is too long.
fn shortened(message: String) -> String {
    // Counting stops at the first character too many.
    if message.chars().nth(MESSAGE_CHARS_MAX).is_none() {
        return message;
    }
    let head = message.chars().take(MESSAGE_CHARS_MAX - MESSAGE_CHARS_TAIL - 3);
    let from_end = message.char_indices().rev().nth(MESSAGE_CHARS_TAIL - 1);
    let tail = from_end.map_or("", |(at, _)| &message[at..]);
    format!("{}...{tail}", head.collect::<String>())
}

/// The tokens and inputs that a job is accounted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens read, special tokens included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens of the prompt that the worker remembered from an earlier one, and so did not compute again; they are
    /// among `input_tokens`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
    /// Inputs that were cut to the model's length.
    pub truncated: u64,
    /// The job's share of the time that its device computed, in microseconds: each batch's time is shared out by
    /// tokens. Of the attempt that ended the job.
    #[serde(default)]
    pub device_us: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way to call it
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where the time went, and the size of the job's last batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// From submission (or, unknown, from delivery) to the worker's admission, in milliseconds.
    pub queued_ms: u64,
    /// From admission to the start of its first batch, in milliseconds.
    pub batch_wait_ms: u64,
    /// From the start of its first batch to the end of its last, in milliseconds.
    pub compute_ms: u64,
    /// Inputs, of all jobs, in its last batch.
    pub batch_size: u64,
    /// Tokens, of all jobs, in its last batch.
    pub batch_tokens: u64,
}

impl Outcome {
    /// The record of a job that succeeded.
    pub fn succeeded(job: &Job, output: Output, usage: Usage, timing: Timing) -> Self {
        Self { output: Some(output), usage, timing, ..Self::bare(job.id.clone(), State::Succeeded) }
            .of(job)
    }

    /// The record of a job that did not succeed.
    pub fn failed(job: &Job, error: JobError) -> Self {
        Self::refused(job.id.clone(), error).of(job)
    }

    /// The record of a message that never became a job.
    pub fn refused(id: JobId, error: JobError) -> Self {
        let state = error.code.state();
        Self { error: Some(error), ..Self::bare(id, state) }
    }

    fn bare(id: JobId, state: State) -> Self {
        Self {
            v: VERSION,
            id,
            model: None,
            task: None,
            tenant: None,
            metadata: BTreeMap::new(),
            state,
            output: None,
            error: None,
            usage: Usage::default(),
            timing: Timing::default(),
            worker: String::new(),
            attempts: 1,
            finished_at_ms: 0,
        }
    }

    fn of(self, job: &Job) -> Self {
        let task: Task = job.work.task();
        Self {
            model: Some(job.model.to_string()),
            task: Some(task.to_string()),
            tenant: job.tenant.clone(),
            metadata: job.metadata.clone(),
            ..self
        }
    }

    /// Stamps the record with the id of the worker that made it, the attempt, and the time in Unix milliseconds.
    #[must_use]
    pub fn stamped(mut self, worker: &str, attempts: u32, finished_at_ms: u64) -> Self {
        worker.clone_into(&mut self.worker);
        self.attempts = attempts;
        self.finished_at_ms = finished_at_ms;
        self
    }

    /// The record's bytes.
    pub fn encode(&self, content_type: ContentType) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, content_type)
    }

    /// Reads a record; its first byte says which codec wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, ContentType::guess(bytes), DEPTH_MAX)
    }
}
