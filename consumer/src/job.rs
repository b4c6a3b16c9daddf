//! A job on its way through the stages.

use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_engine::Finish;
use forebay_fabric::intake::Ticket;
use forebay_schemas::{Job, JobError, Lane, Usage};
use tokio::time::Instant;

/// A job that was read.
#[derive(Debug)]
pub struct Decoded {
    /// The job.
    pub job: Job,
    /// How it is answered.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// When it was received, in Unix milliseconds.
    pub received_at_ms: u64,
}

/// A job that is to be done.
#[derive(Debug)]
pub struct Admitted {
    /// The job.
    pub job: Job,
    /// How it is answered.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// From submission to admission.
    pub queued_ms: u64,
    /// When it was admitted.
    pub at: Instant,
}

/// A job whose inputs are being computed, in one batch or over several. Each batch that holds some of
/// its inputs holds a reference; the last one to let go owns the job, and with it the right to answer.
#[derive(Debug)]
pub struct InFlight {
    /// The job; its texts are gone by now.
    pub job: Job,
    /// How it is answered.
    pub ticket: Ticket,
    /// What it takes.
    pub usage: Usage,
    /// How its vectors are finished.
    pub finish: Finish,
    /// From submission to admission.
    pub queued_ms: u64,
    /// When it was admitted.
    pub admitted_at: Instant,
    /// Whether it must not share a batch: a worker died of it, or of its company.
    pub alone: bool,
    /// How many inputs it has.
    pub inputs: usize,
    progress: Mutex<Progress>,
}

/// What has come of a job so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// `inputs * dim` values, filled in as batches come back; empty before the first.
    pub vectors: Vec<f32>,
    /// The first thing that went wrong.
    pub error: Option<JobError>,
    /// When the first batch began and the last one ended.
    pub computed: Option<(Instant, Instant)>,
    /// Inputs, of all jobs, in the last batch.
    pub batch_size: u64,
    /// Tokens, of all jobs, in the last batch.
    pub batch_tokens: u64,
}

impl InFlight {
    /// A job of which nothing is computed yet.
    pub fn new(admitted: Admitted, inputs: usize, usage: Usage, finish: Finish) -> Self {
        let Admitted { job, ticket, queued_ms, at: admitted_at, .. } = admitted;
        let (alone, progress) = (ticket.deaths > 0, Mutex::default());
        Self { job, ticket, usage, finish, queued_ms, admitted_at, alone, inputs, progress }
    }

    /// What has come of it so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's end: everything there is to answer with.
    pub fn into_parts(self) -> (Job, Ticket, Usage, Progress) {
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.job, self.ticket, self.usage, progress)
    }
}
