//! The span of a batch. Its jobs belong to different traces, so it is a trace of its own, which is linked with theirs.

use forebay_fabric::telemetry::trace::{self, Span, SpanKind, names, system_time};
use forebay_schemas::TraceContext;

use crate::{
    encode::compute::Computed,
    in_flight::{InFlight, Progress},
};

/// The most batches that a job is linked with: one of thousands of inputs is in many.
const BATCHES_MAX: usize = 32;

/// The span of one batch, if the trace of any of its jobs is recorded.
pub struct BatchTrace(Option<TraceContext>);

impl BatchTrace {
    /// Makes the span of a batch that was computed.
    pub fn of(batch: &Computed) -> Self {
        if !trace::is_on() || batch.pieces.iter().all(|piece| piece.job.span().is_none()) {
            return Self(None);
        }
        let Some(mut span) = Span::root(SpanKind::Internal, "batch") else { return Self(None) };
        let size: usize = batch.pieces.iter().map(|piece| piece.count).sum();
        span.began(system_time(batch.started_at));
        span.set(names::BATCH_SIZE, size as i64);
        span.set(names::BATCH_TOKENS, batch.tokens as i64);
        batch.pieces.iter().filter_map(|piece| piece.job.span()).for_each(|job| span.link(job));
        if !batch.failures.is_empty() {
            span.fail(format!("{} of {size} inputs failed", batch.failures.len()));
        }
        let context = span.context().clone();
        span.end_at(system_time(batch.ended_at));
        Self(Some(context))
    }

    /// Links a job of the batch with it.
    pub fn join(&self, job: &InFlight, progress: &mut Progress) {
        if let Some(batch) = &self.0
            && job.span().is_some()
            && progress.batches.len() < BATCHES_MAX
        {
            progress.batches.push(batch.clone());
        }
    }
}
