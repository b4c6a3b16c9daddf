//! Bodies to jobs, trusting nothing: every bound is checked before anything is allocated for it.
//!
//! A body that is no job becomes a [`Refusal`], which keeps everything that could still be read, so that
//! its sender finds an answer at the result key.

use crate::{
    codec::{self, ContentType},
    diagnosis::{self, Head},
    fields::{Fields, FieldsSeed},
    job::Job,
    limits::Limits,
    outcome::{ErrorCode, JobError},
};

/// A body that is no job: why not, and what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// Why it is no job.
    pub error: JobError,
    /// The fields that could be read.
    pub head: Box<Head>,
}

/// Reads a job and checks it whole.
pub fn decode_job(body: &[u8], content_type: ContentType, limits: &Limits) -> Result<Job, Refusal> {
    if body.len() > limits.body_bytes_max {
        let message = format!(
            "the body has {} bytes, the limit is {}: send fewer inputs a job",
            body.len(),
            limits.body_bytes_max
        );
        let error = JobError::new(ErrorCode::PayloadTooLarge, message);
        return Err(Refusal { error, head: Box::default() });
    }
    let fields = codec::decode_seed(FieldsSeed { limits }, body, content_type, limits.depth_max);
    let job = fields.map_err(|e| JobError::invalid(e.to_string())).and_then(Fields::into_job);
    job.and_then(|job| job.validate(limits).map(|()| job)).map_err(|error| {
        let (error, head) = diagnosis::diagnose(error, body, content_type, limits);
        Refusal { error, head: Box::new(head) }
    })
}
