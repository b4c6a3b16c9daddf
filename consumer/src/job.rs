//! A job on its way to being tokenized.

use forebay_fabric::ticket::Ticket;
use forebay_schemas::{Job, Lane};
use tokio::time::Instant;

/// A job that was read from its message.
#[derive(Debug)]
pub struct Decoded {
    /// The job.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// When it was received, in Unix milliseconds.
    pub received_at_ms: u64,
}

/// A job that is to be computed.
#[derive(Debug)]
pub struct Admitted {
    /// The job.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// Milliseconds from submission to admission.
    pub queued_ms: u64,
    /// When it was admitted.
    pub at: Instant,
}
