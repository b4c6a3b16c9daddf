//! A job that is tokenized and computed, in one part or in many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::{Finish, InputType, Tokens};
use forebay_fabric::{disposition::Disposition, telemetry::trace::Stages, ticket::Ticket};
use forebay_schemas::{
    self as schemas, Job, JobError, Lane, Outcome, Output, Timing, TraceContext, Usage, Work,
};
use tokio::time::Instant;

use crate::job::{Admitted, is_ours};

/// A job that is tokenized and computed. Each of its texts that is not tokenized yet, and each input that is not
/// computed yet, has a holder with a reference; the last one to let go owns the job, and with it the right to answer.
#[derive(Debug)]
pub struct InFlight {
    /// The job; its texts are gone by now.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// How its vectors are finished.
    pub finish: Finish,
    /// How the model is to read its texts.
    pub input_type: InputType,
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

/// Consecutive inputs of a job as token ids.
#[derive(Debug)]
pub struct Part {
    /// The job.
    pub job: Arc<InFlight>,
    /// The index of the first one in the job.
    pub first: usize,
    /// The inputs, special tokens included: one sequence each.
    pub inputs: Vec<Tokens>,
}

/// The results of a job so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// Tokens read, and inputs that were cut.
    pub usage: Usage,
    /// One for each input, filled in as batches come back; none before the first.
    pub rows: Vec<Vec<f32>>,
    /// The error of the first input, by its index, of those that are known to have failed.
    pub error: Option<JobError>,
    /// Whether some of its inputs are packed.
    pub is_begun: bool,
    /// How many of its inputs came back.
    pub done: usize,
    /// When the first batch began and the last one ended.
    pub computed: Option<(Instant, Instant)>,
    /// Inputs, of all jobs, in the last batch.
    pub batch_size: u64,
    /// Tokens, of all jobs, in the last batch.
    pub batch_tokens: u64,
    /// When the first part was tokenized and the last one; kept for a job whose trace is recorded.
    pub tokenized: Option<(Instant, Instant)>,
    /// The spans of its batches, of such a job.
    pub batches: Vec<TraceContext>,
}

impl Progress {
    /// An input failed, and with it the job. The answer names the first one, whichever part it was in.
    pub fn fail(&mut self, error: JobError) {
        if self.error.as_ref().is_none_or(|known| error.index < known.index) {
            self.error = Some(error);
        }
    }
}

impl InFlight {
    /// A job of which nothing is tokenized yet.
    pub fn new(admitted: Admitted, inputs: usize) -> Self {
        let Admitted { job, ticket, lane, queued_ms, at: admitted_at } = admitted;
        let alone = ticket.deaths > 0;
        let finish = finish(&job.work);
        let input_type = input_type(&job.work);
        let progress = Mutex::default();
        Self {
            job,
            ticket,
            lane,
            finish,
            input_type,
            queued_ms,
            admitted_at,
            alone,
            inputs,
            progress,
        }
    }

    /// The results so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its own span, where its trace is recorded.
    pub fn span(&self) -> Option<&TraceContext> {
        self.ticket.trace.as_ref()?.recorded()
    }

    /// Whether the rest of it is worth doing, asked before a part is tokenized: none of its inputs has failed, and its
    /// delivery is still this worker's. A job that is begun is finished all the same: its next copy is parked until
    /// this one is answered.
    pub fn is_wanted(&self) -> bool {
        let progress = self.progress();
        progress.error.is_none() && (progress.is_begun || is_ours(&self.ticket, "tokenize"))
    }

    /// Whether a part is to be packed, by the same rule. With the first part that is, the job is begun: from then on
    /// each part is packed, or else a job of which one part is computed and another is not would be taken for a whole
    /// one.
    pub fn begins(&self) -> bool {
        let mut progress = self.progress();
        let is_ours = progress.is_begun || is_ours(&self.ticket, "batch");
        progress.is_begun = is_ours;
        is_ours && progress.error.is_none()
    }

    /// Lets go of a part of a job that is not wanted any more. Returns the job's disposition if that was the last
    /// reference; where other parts are still on their way, the last of those has it.
    pub fn let_go(self: Arc<Self>, attempts_max: u32) -> Option<Disposition> {
        let whole = Arc::into_inner(self)?;
        let Some(error) = whole.progress().error.take() else {
            return Some(Disposition::GiveBack(whole.ticket.acker));
        };
        let (ticket, outcome) = whole.end(|_, _| Err(error));
        Some(Disposition::of(ticket, outcome, attempts_max))
    }

    /// Ends the job. Its output is made of the job and its rows, unless it has failed.
    pub fn end(
        self,
        output: impl FnOnce(&Job, Vec<Vec<f32>>) -> Result<Output, JobError>,
    ) -> (Ticket, Outcome) {
        let Self { job, mut ticket, queued_ms, admitted_at, progress, .. } = self;
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Progress { usage, rows, error, computed, batch_size, batch_tokens, .. } = progress;
        if let Some(trace) = &mut ticket.trace {
            let Progress { tokenized, batches, .. } = progress;
            trace.passed(Stages { admitted_at, tokenized, computed, batches });
        }
        let (started_at, ended_at) = computed.unwrap_or((admitted_at, admitted_at));
        let timing = Timing {
            queued_ms,
            batch_wait_ms: started_at.saturating_duration_since(admitted_at).as_millis() as u64,
            compute_ms: ended_at.saturating_duration_since(started_at).as_millis() as u64,
            batch_size,
            batch_tokens,
        };
        let outcome = match error.map_or_else(|| output(&job, rows), Err) {
            Ok(output) => Outcome::succeeded(&job, output, usage, timing),
            Err(error) => Outcome { usage, timing, ..Outcome::failed(&job, error) },
        };
        (ticket, outcome)
    }
}

/// How the vectors of an embed job are finished; scores stay as the model gives them.
fn finish(work: &Work) -> Finish {
    let (Work::Embed { params, .. } | Work::EmbedIds { params, .. }) = work else {
        return Finish::default();
    };
    let dimensions = params.dimensions.map(|dimensions| dimensions as usize);
    Finish { normalize: params.normalize, dimensions }
}

/// How a model that reads queries otherwise than documents is to read a job's texts.
fn input_type(work: &Work) -> InputType {
    match work {
        Work::EmbedTokens { params, .. } if params.input_type == schemas::InputType::Query => {
            InputType::Query
        }
        _ => InputType::Document,
    }
}
