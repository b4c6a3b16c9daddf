//! A job whose inputs are being computed, in one batch or over several.

use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_engine::Finish;
use forebay_fabric::ticket::Ticket;
use forebay_schemas::{Job, JobError, Usage, Work};
use tokio::time::Instant;

use crate::job::Admitted;

/// A job whose inputs are being computed. Each batch that holds some of its inputs holds a reference; the last one to
/// let go owns the job, and with it the right to answer.
#[derive(Debug)]
pub struct InFlight {
    /// The job; its texts are gone by now.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// Tokens read, and inputs that were cut.
    pub usage: Usage,
    /// How its vectors are finished.
    pub finish: Finish,
    /// Milliseconds from submission to admission.
    pub queued_ms: u64,
    /// When it was admitted.
    pub admitted_at: Instant,
    /// Whether it must not share a batch: a worker died of it, or of its batch-mates.
    pub alone: bool,
    /// How many inputs it has.
    pub inputs: usize,
    progress: Mutex<Progress>,
}

/// The results of a job so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// `inputs * dim` values, filled in as batches come back; empty before the first.
    pub vectors: Vec<f32>,
    /// The first error.
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
    pub fn new(admitted: Admitted, inputs: usize, usage: Usage) -> Self {
        let Admitted { job, ticket, queued_ms, at: admitted_at, .. } = admitted;
        let alone = ticket.deaths > 0;
        let finish = finish(&job.work);
        let progress = Mutex::default();
        Self { job, ticket, usage, finish, queued_ms, admitted_at, alone, inputs, progress }
    }

    /// The results so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the job apart into all that its answer is made of.
    pub fn into_parts(self) -> (Job, Ticket, Usage, Progress) {
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.job, self.ticket, self.usage, progress)
    }
}

/// How the vectors of an embed job are finished; scores stay as the model gives them.
fn finish(work: &Work) -> Finish {
    let Work::Embed { params, .. } = work else { return Finish::default() };
    let dimensions = params.dimensions.map(|dimensions| dimensions as usize);
    Finish { normalize: params.normalize, dimensions }
}
