//! The reply to a publisher whose result is too large for a message: it names the key that holds the result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError, ContentType},
    names::JobId,
    outcome::{Outcome, State},
    version::VERSION,
};

/// A reply without the result. It has a `result_key`, which a result never has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultPointer {
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
    /// How the job ended.
    pub state: State,
    /// The Redis key of the result.
    pub result_key: String,
    /// The size of the result in bytes.
    pub result_bytes: u64,
}

impl ResultPointer {
    /// The pointer to an outcome's record, which has `result_bytes` bytes.
    pub fn to(outcome: &Outcome, result_bytes: usize) -> Self {
        Self {
            v: VERSION,
            id: outcome.id.clone(),
            model: outcome.model.clone(),
            task: outcome.task.clone(),
            state: outcome.state,
            result_key: outcome.id.result_key(),
            result_bytes: result_bytes as u64,
        }
    }

    /// The message's body.
    pub fn encode(&self, content_type: ContentType) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, content_type)
    }
}
