//! The spans of one job in a worker, made when it is settled of the times that its stages took anyway.

use std::time::{Duration, SystemTime};

use forebay_schemas::{Outcome, TraceContext, names::JOBS};
use opentelemetry::trace::SpanKind;
use tokio::time::Instant;

use super::{
    names,
    span::{Span, begin, system_time},
};

/// The trace of one job in this program, if there is one. It travels with the right to answer the job.
#[derive(Debug)]
pub struct JobTrace {
    /// The context that the job is part of: its own span where that is recorded, else what came with its message.
    context: TraceContext,
    recorded: Option<Recorded>,
}

/// A job's span, and what is known of the stages so far.
#[derive(Debug)]
struct Recorded {
    span: Span,
    received_at: Instant,
    queued: Duration,
    stages: Option<Stages>,
}

/// The times of a job that was computed.
#[derive(Debug)]
pub struct Stages {
    /// When it was admitted.
    pub admitted_at: Instant,
    /// When its first part was tokenized, and its last.
    pub tokenized: Option<(Instant, Instant)>,
    /// When its first batch began, and its last one ended.
    pub computed: Option<(Instant, Instant)>,
    /// The spans of its batches.
    pub batches: Vec<TraceContext>,
}

impl JobTrace {
    /// The trace of a job whose message came now and was queued so long; `None` where it is part of none.
    pub fn of_message(incoming: Option<TraceContext>, queued: Duration) -> Option<Box<Self>> {
        let (context, span) = begin(incoming, SpanKind::Consumer, || "process forebay.jobs".into());
        let recorded =
            span.map(|span| Recorded { span, received_at: Instant::now(), queued, stages: None });
        Some(Box::new(Self { context: context?, recorded }))
    }

    /// The trace's id, for log lines.
    pub fn id(&self) -> String {
        self.context.trace_id_text()
    }

    /// The job's own span, where it is recorded.
    pub fn recorded(&self) -> Option<&TraceContext> {
        self.recorded.is_some().then_some(&self.context)
    }

    /// Takes the times of its stages.
    pub fn passed(&mut self, stages: Stages) {
        if let Some(recorded) = &mut self.recorded {
            recorded.stages = Some(stages);
        }
    }

    /// Takes from its record what a reader of traces looks for.
    pub fn has(&mut self, outcome: &Outcome) {
        let Some(Recorded { span, .. }) = &mut self.recorded else { return };
        if let Some(model) = &outcome.model {
            span.set(names::MODEL, model.clone());
        }
        if let Some(task) = &outcome.task {
            span.set(names::OPERATION, names::operation(task));
        }
        let usage = &outcome.usage;
        span.set(names::INPUT_TOKENS, usage.input_tokens as i64);
        if usage.output_tokens > 0 {
            span.set(names::OUTPUT_TOKENS, usage.output_tokens as i64);
        }
        if let Some(error) = &outcome.error {
            span.set(names::ERROR, error.code.as_str());
            span.fail(error.message.clone());
        }
    }

    /// Ends the job's span in this state, and makes those of its stages.
    pub fn end(self, id: &str, routing_key: &str, state: &'static str, attempt: u32) {
        let Some(Recorded { mut span, received_at, queued, stages }) = self.recorded else {
            return;
        };
        let received = system_time(received_at);
        let submitted = received.checked_sub(queued).unwrap_or(received);
        span.began(submitted);
        for (name, value) in [
            (names::PROVIDER, names::FOREBAY),
            (names::SYSTEM, names::RABBITMQ),
            (names::MESSAGING_OPERATION, "process"),
            (names::DESTINATION, JOBS),
            (names::STATE, state),
        ] {
            span.set(name, value);
        }
        span.set(names::MESSAGE_ID, id.to_owned());
        span.set(names::ROUTING_KEY, routing_key.to_owned());
        span.set(names::ATTEMPT, i64::from(attempt));
        if !queued.is_zero() {
            step(&span, "queue", (submitted, received), &[]);
        }
        let last = match stages {
            Some(stages) => of_stages(&span, received, stages),
            None => received,
        };
        step(&span, "settle", (last, SystemTime::now()), &[]);
        span.end();
    }
}

/// Makes the spans of a job's stages; returns when the last of them ended.
fn of_stages(job: &Span, received: SystemTime, stages: Stages) -> SystemTime {
    let Stages { admitted_at, tokenized, computed, batches } = stages;
    let admitted = system_time(admitted_at);
    let mut last = step(job, "admit", (received, admitted), &[]);
    // The parts of a large job are tokenized while others of it are computed.
    let mut waits_from = last;
    if let Some((first, end)) = tokenized {
        waits_from = system_time(first);
        last = step(job, "tokenize", (admitted, system_time(end)), &[]);
    }
    if let Some((began, ended)) = computed {
        let began = system_time(began);
        step(job, "batch wait", (waits_from, began), &[]);
        last = step(job, "compute", (began, system_time(ended)), &batches);
    }
    last
}

/// Makes the span of one stage; returns when it ended.
fn step(
    job: &Span,
    name: &'static str,
    (from, to): (SystemTime, SystemTime),
    links: &[TraceContext],
) -> SystemTime {
    let mut step = Span::child(job.context(), SpanKind::Internal, name);
    step.began(from);
    for link in links {
        step.link(link);
    }
    step.end_at(to);
    to
}
