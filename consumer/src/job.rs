//! A job on its way to being tokenized.

use forebay_fabric::ticket::Ticket;
use forebay_schemas::{Job, Lane};
use metrics::counter;
use tokio::time::Instant;

/// Whether a job's delivery is still this worker's to settle, asked before each stage works on it. When its channel was
/// lost, the broker delivers the message again, and the work would be done twice. A result that is there is written all
/// the same.
pub fn is_ours(ticket: &Ticket, stage: &'static str) -> bool {
    let is_held = ticket.acker.is_held();
    if !is_held {
        counter!("forebay_lost_jobs_total", "stage" => stage).increment(1);
    }
    is_held
}

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
