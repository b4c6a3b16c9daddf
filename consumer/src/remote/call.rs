//! The stage between admission and settling: calls the endpoint for each job, as many at once as are allowed.
//!
//! A job that has to wait, for its turn or for a failing endpoint, stays in hand and in the journal until its deadline.
//! Failures that may pass are tried again here some times, and then by the queue's own back-off.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{
    backoff::Backoff,
    clock::Clock,
    config::{RemoteConfig, RemoteTask},
    disposition::Disposition,
    store::ResultStore,
};
use forebay_schemas::{
    EmbedOutput, ErrorCode, Job, JobError, Outcome, Output, Task, Timing, Usage, Work,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use metrics::{counter, histogram};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, Unusable},
    embeddings,
    endpoint::{Called, Endpoint},
    failure::Failure,
    gate::{Gate, Verdict},
    rerank,
};
use crate::{
    job::{Admitted, is_ours},
    journal::SharedJournal,
    lanes::LaneReceiver,
    stats::Stats,
};

/// A call that its job's deadline cut short says something of the endpoint only if it had this long.
const JUDGED_AFTER: Duration = Duration::from_secs(5);
/// The deadline of a job without one, for timers.
const FAR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The stage that calls the endpoint.
pub struct Calls {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// How it is called.
    pub config: RemoteConfig,
    /// Where calls wait for their turn.
    pub gate: Arc<Gate>,
    /// The journal that jobs are in while they are called for.
    pub journal: SharedJournal,
    /// The store of cancel requests.
    pub store: Arc<dyn ResultStore>,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// The time that deadlines are compared with.
    pub clock: Clock,
    /// Counts what is computed.
    pub stats: Arc<Stats>,
    /// Cancelled when the worker drains: jobs that wait for their turn go back.
    pub stop: CancellationToken,
    /// Where jobs go.
    pub ended: mpsc::Sender<Disposition>,
}

/// Why a job has no output.
enum Ending {
    Failed(JobError),
    GiveBack,
}

/// The time in which calls were under way, of several at once counted once.
#[derive(Default)]
struct Busy {
    calls: usize,
    since: Option<Instant>,
}

/// The task of a remote model.
pub fn task(config: &RemoteConfig) -> Task {
    match config.task {
        RemoteTask::Embed => Task::Embed,
        RemoteTask::Rerank => Task::Rerank,
    }
}

impl Calls {
    /// Runs until its input ends and all that it took is passed on.
    pub async fn run(self, mut admitted: LaneReceiver<Admitted>) {
        let busy = std::sync::Mutex::new(Busy::default());
        let mut running = FuturesUnordered::new();
        let mut has_ended = false;
        loop {
            tokio::select! {
                biased;
                Some(disposition) = running.next() => {
                    // An error says that the worker ends; its deliveries go back.
                    let _: Result<(), _> = self.ended.send(disposition).await;
                }
                job = admitted.recv(), if !has_ended && running.len() < self.config.concurrency_max => {
                    match job {
                        Some(job) => running.push(self.one(job, &busy)),
                        None => has_ended = true,
                    }
                }
                else => return,
            }
        }
    }

    /// Calls for one job.
    async fn one(&self, admitted: Admitted, busy: &std::sync::Mutex<Busy>) -> Disposition {
        let inputs = admitted.job.work.inputs();
        let run = [(&admitted.job.id, 0..inputs)].into_iter();
        // Without an entry the worker ends.
        let Some(entry) = self.journal.enter(run, false).await else {
            return Disposition::GiveBack(admitted.ticket.acker);
        };
        let began = Instant::now();
        let called = self.rows(&admitted, busy).await;
        self.journal.leave(entry);
        let Admitted { job, ticket, queued_ms, at, .. } = admitted;
        let timing = Timing {
            queued_ms,
            batch_wait_ms: began.saturating_duration_since(at).as_millis() as u64,
            compute_ms: began.elapsed().as_millis() as u64,
            batch_size: inputs as u64,
            ..Timing::default()
        };
        let outcome = match called {
            Err(Ending::GiveBack) => return Disposition::GiveBack(ticket.acker),
            Err(Ending::Failed(error)) => Outcome { timing, ..Outcome::failed(&job, error) },
            Ok(Answer { rows, tokens }) => {
                let input_tokens = tokens.unwrap_or(0);
                let usage = Usage { input_tokens, ..Usage::default() };
                let timing = Timing { batch_tokens: input_tokens, ..timing };
                match output(&job, rows) {
                    Ok(output) => Outcome::succeeded(&job, output, usage, timing),
                    Err(error) => Outcome { usage, timing, ..Outcome::failed(&job, error) },
                }
            }
        };
        Disposition::of(ticket, outcome, self.attempts_max)
    }

    /// The rows of all inputs of a job, in as many calls as it needs.
    async fn rows(
        &self,
        admitted: &Admitted,
        busy: &std::sync::Mutex<Busy>,
    ) -> Result<Answer, Ending> {
        let (texts, query) = self.texts(&admitted.job.work).map_err(Ending::Failed)?;
        let mut all = Answer { rows: Vec::with_capacity(texts.len()), tokens: Some(0) };
        for part in texts.chunks(self.config.inputs_max) {
            let model = &self.config.model;
            let body = match query {
                None => embeddings::body(model, part, self.config.encoding),
                Some(query) => rerank::body(model, query, part),
            };
            let body = body.map_err(|error| {
                Ending::Failed(JobError::new(ErrorCode::Internal, error.to_string()))
            })?;
            let answer = self.answer(admitted, body.into(), part.len(), busy).await?;
            if answer.tokens.is_none() {
                counter!("forebay_remote_usage_missing_total").increment(1);
            }
            all.tokens =
                all.tokens.zip(answer.tokens).map(|(sum, tokens)| sum.saturating_add(tokens));
            all.rows.extend(answer.rows);
        }
        Ok(all)
    }

    /// The texts of a job, and the query of a ranking.
    fn texts<'a>(&self, work: &'a Work) -> Result<(&'a [String], Option<&'a str>), JobError> {
        match work {
            Work::Embed { params, .. } if !params.truncate && self.config.truncates => {
                Err(JobError::invalid(
                    "`truncate` is false, and the endpoint of this model may cut texts that are too long: leave it \
                     out, or let the operator set `truncates = false` if the endpoint refuses them",
                ))
            }
            Work::Embed { input, .. } => Ok((input, None)),
            Work::Rerank { query, documents, .. } => Ok((documents, Some(query))),
            // Others are refused at admission.
            other => {
                let message = format!("a remote model does not do `{}`", other.task());
                Err(JobError::new(ErrorCode::TaskNotSupported, message))
            }
        }
    }

    /// The answer for one part of a job, after as many tries as it takes.
    async fn answer(
        &self,
        admitted: &Admitted,
        body: Arc<[u8]>,
        inputs: usize,
        busy: &std::sync::Mutex<Busy>,
    ) -> Result<Answer, Ending> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut tries = 0;
        loop {
            let deadline = self.deadline(&admitted.job);
            let turn = tokio::select! {
                biased;
                () = self.stop.cancelled(), if tries > 0 => return Err(Ending::GiveBack),
                turn = timeout_at(deadline, self.gate.turn()) => turn,
                () = self.stop.cancelled() => return Err(Ending::GiveBack),
            };
            let Ok((turn, waited)) = turn else { return Err(expired()) };
            self.check(admitted, waited || tries > 0).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(expired());
            }
            let timeout = left.min(self.endpoint.timeout());
            let called = self.call(&admitted.job, body.clone(), inputs, timeout, busy).await;
            let read = called.result.and_then(|bytes| self.read(&bytes, inputs));
            counter!("forebay_remote_calls_total", "outcome" => word(&read)).increment(1);
            let is_probe = turn.is_probe();
            turn.ended(verdict(&read, timeout), called.pause);
            match read {
                Ok(answer) => {
                    self.stats.computed(answer.tokens.unwrap_or(0), 0);
                    return Ok(answer);
                }
                Err(Failure::Refused(error)) => return Err(Ending::Failed(error)),
                Err(Failure::OutOfTime) => return Err(expired()),
                // The gate holds the next call back for as long as the endpoint asks.
                Err(Failure::Limited) => {}
                Err(Failure::Passing(reason)) => {
                    tries += u32::from(!is_probe);
                    tracing::debug!(id = %admitted.job.id, tries, reason, "a call failed");
                    if tries >= self.config.tries_max {
                        let url = self.endpoint.url();
                        let message = format!("{url}: {reason}");
                        return Err(Ending::Failed(JobError::new(ErrorCode::Internal, message)));
                    }
                    let pause = tokio::time::sleep(backoff.next_pause());
                    if timeout_at(deadline, pause).await.is_err() {
                        return Err(expired());
                    }
                }
            }
        }
    }

    /// Whether a job is still to be called for: its delivery is this worker's, and no one has cancelled it meanwhile.
    async fn check(&self, admitted: &Admitted, waited: bool) -> Result<(), Ending> {
        if !is_ours(&admitted.ticket, "call") {
            return Err(Ending::GiveBack);
        }
        if !waited {
            return Ok(());
        }
        let cancelled = self.store.cancelled(std::slice::from_ref(&admitted.job.id)).await;
        // Without an answer it is called for: a cancellation is a wish.
        if cancelled.is_ok_and(|found| found.first() == Some(&true)) {
            let error = JobError::new(ErrorCode::Cancelled, "cancelled before it was called for");
            return Err(Ending::Failed(error));
        }
        Ok(())
    }

    async fn call(
        &self,
        job: &Job,
        body: Arc<[u8]>,
        inputs: usize,
        timeout: Duration,
        busy: &std::sync::Mutex<Busy>,
    ) -> Called {
        let endpoint = self.endpoint.clone();
        let id = job.id.to_string();
        self.count(busy, 1);
        let call = move || endpoint.call(&id, &body, inputs, timeout);
        let called = tokio::task::spawn_blocking(call).await;
        self.count(busy, -1);
        let called = called.unwrap_or_else(|error| Called {
            result: Err(Failure::Passing(format!("the call ended early: {error}"))),
            pause: None,
            took: Duration::ZERO,
        });
        histogram!("forebay_remote_call_ms").record(called.took.as_secs_f64() * 1e3);
        called
    }

    /// Counts calls under way, and the time in which there were any as busy.
    fn count(&self, busy: &std::sync::Mutex<Busy>, change: isize) {
        let mut busy = busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        if let Some(since) = busy.since.replace(now).filter(|_| busy.calls > 0) {
            let busy_us = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
            self.stats.computed(0, busy_us);
        }
        busy.calls = busy.calls.saturating_add_signed(change);
    }

    fn read(&self, bytes: &[u8], inputs: usize) -> Result<Answer, Failure> {
        let read = match self.config.task {
            RemoteTask::Embed => embeddings::read(bytes, inputs),
            RemoteTask::Rerank => rerank::read(bytes, inputs, self.config.scores),
        };
        read.map_err(|error: Unusable| Failure::Passing(error.to_string()))
    }

    /// When a job expires, on the clock of timers.
    fn deadline(&self, job: &Job) -> Instant {
        let left = job.expires_at_ms().map(|at| at.saturating_sub(self.clock.now_ms()));
        Instant::now() + left.map_or(FAR, |ms| Duration::from_millis(ms).min(FAR))
    }
}

fn expired() -> Ending {
    let message = "expired while the model's endpoint was waited for";
    Ending::Failed(JobError::new(ErrorCode::DeadlineExceeded, message))
}

/// The verdict on the endpoint by the end of a call.
fn verdict(read: &Result<Answer, Failure>, timeout: Duration) -> Verdict {
    match read {
        Ok(_) | Err(Failure::Refused(_) | Failure::Limited) => Verdict::Alive,
        Err(Failure::Passing(_)) => Verdict::Failing,
        Err(Failure::OutOfTime) if timeout >= JUDGED_AFTER => Verdict::Failing,
        Err(Failure::OutOfTime) => Verdict::Unknown,
    }
}

/// The end of a call as a label.
fn word(read: &Result<Answer, Failure>) -> &'static str {
    match read {
        Ok(_) => "ok",
        Err(Failure::Refused(_)) => "refused",
        Err(Failure::Limited) => "limited",
        Err(Failure::Passing(_)) => "failed",
        Err(Failure::OutOfTime) => "out_of_time",
    }
}

/// The output of a job, of its rows.
fn output(job: &Job, mut rows: Vec<Vec<f32>>) -> Result<Output, JobError> {
    let is_wrong = |row: &Vec<f32>| row.iter().any(|value| !value.is_finite());
    if let Some(index) = rows.iter().position(is_wrong) {
        let message = format!("the model's output for input {index} is not finite");
        return Err(JobError::new(ErrorCode::NumericalError, message).at(index));
    }
    match &job.work {
        Work::Rerank { params, .. } => {
            let scores = rows.concat();
            let order = rerank::order(&scores, params.top_n);
            Ok(Output::Rerank { scores, order })
        }
        Work::Embed { params, .. } => {
            let dim = rows.first().map_or(0, Vec::len);
            if rows.iter().any(|row| row.len() != dim) {
                let message = "the endpoint gave vectors of several lengths in its answers";
                return Err(JobError::new(ErrorCode::Internal, message));
            }
            let kept = params.dimensions.map(|dimensions| dimensions as usize);
            if let Some(kept) = kept.filter(|kept| *kept > dim) {
                return Err(JobError::invalid(format!(
                    "`dimensions` is {kept}, and the model's vectors have {dim}: ask for {dim} or fewer"
                )));
            }
            for row in &mut rows {
                embeddings::finish(row, kept, params.normalize);
            }
            Ok(Output::Embed(EmbedOutput { dim: kept.unwrap_or(dim), data: rows.concat() }))
        }
        other => {
            let message = format!("a remote model does not do `{}`", other.task());
            Err(JobError::new(ErrorCode::TaskNotSupported, message))
        }
    }
}
