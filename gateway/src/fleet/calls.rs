//! [`Fleet`]: synchronous calls. Each becomes one or more jobs of the interactive lane with a deadline, whose results
//! are waited for by notification.

use std::{hash::Hash, sync::Arc, time::Duration};

use forebay_client::{Client, Job, JobId, Lane, ModelId, Outcome, Output, SubmitError, Work};
use forebay_schemas::{
    ErrorCode, JobError, KeyId, LabelScore, RerankParams, SparseParams, SparseVector, State,
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use metrics::counter;
use tokio::time::{Instant, timeout_at};

use super::{
    abandon::{Canceller, Pending},
    cache::Cache,
    distinct::{Distinct, spread},
    shared::{Boarded, Flights, Key, Landed},
    split::{Input, Part, Sizes, TooLong, split},
};
use crate::{error::ApiError, failures, trace::CallTrace};

/// Jobs of one request that are in their queues at once: enough to keep several workers busy, and few enough that one
/// request does not fill a queue.
const JOBS_AT_ONCE: usize = 8;
/// Inputs up to here are compared and hashed in place: it takes a few milliseconds.
pub(super) const IN_PLACE_BYTES_MAX: usize = 1 << 20;
/// The code of an error for want of time.
const TOO_LATE: &str = "deadline_exceeded";
/// How long a result is kept that its caller takes at once, in seconds: for a caller that reads it late.
const RESULT_TTL_S: u64 = 600;

/// The fleet, as requests see it.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The client that submits and waits.
    pub client: Client,
    canceller: Canceller,
    flights: Flights,
    pub(super) cache: Option<Arc<Cache>>,
    sizes: Sizes,
}

/// A request on whose behalf jobs are made.
#[derive(Debug, Clone)]
pub struct Call {
    /// The model.
    pub model: ModelId,
    /// Who is billed.
    pub tenant: String,
    /// The id of the key that the request came with.
    pub api_key: Option<KeyId>,
    /// How long the caller waits.
    pub wait: Duration,
    /// The field that the texts came in, for errors.
    pub field: &'static str,
}

/// Scores of documents with the tokens that they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// One score for each document, in the documents' order.
    pub scores: Vec<f32>,
    /// Tokens read.
    pub tokens: u64,
}

/// A job that the broker has confirmed.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) id: JobId,
    /// Dropped before it is settled, it cancels the job.
    pub(super) pending: Pending,
    pub(super) trace: CallTrace,
}

/// One job's share of a request and its result.
struct Done {
    start: usize,
    inputs: usize,
    outcome: Arc<Outcome>,
}

/// Outputs of the jobs of one request.
pub(super) struct Outputs<T> {
    /// Those of the distinct inputs, a job's together.
    pub(super) parts: Vec<T>,
    /// The worker of each part, and how many inputs the part has.
    pub(super) workers: Vec<(String, usize)>,
    /// For each input which of the distinct ones it is.
    pub(super) order: Vec<usize>,
    pub(super) tokens: u64,
}

impl Fleet {
    /// The fleet behind `client`, with the limits of its jobs.
    pub fn new(client: Client, canceller: Canceller, inputs_max: usize, bytes_max: usize) -> Self {
        let flights = Flights::default();
        let sizes = Sizes { inputs_max, bytes_max };
        Self { client, canceller, flights, cache: None, sizes }
    }

    /// With a cache of vectors.
    #[must_use]
    pub fn cached(self, cache: Option<Arc<Cache>>) -> Self {
        Self { cache, ..self }
    }

    /// One sparse vector for each text, and the tokens read.
    pub async fn embed_sparse(
        &self,
        call: &Call,
        texts: Vec<String>,
        params: &SparseParams,
    ) -> Result<(Vec<SparseVector>, u64), ApiError> {
        let work = |input| Work::EmbedSparse { input, params: params.clone() };
        let output = |output, inputs| match output {
            Output::EmbedSparse(found) if found.vectors.len() == inputs => Some(found.vectors),
            _ => None,
        };
        let Outputs { parts, order, tokens, .. } =
            self.outputs(call, texts, 0, work, output).await?;
        Ok((spread(&order, parts.concat()), tokens))
    }

    /// All labels with their scores for each text, best first; and the tokens read.
    pub async fn classify(
        &self,
        call: &Call,
        texts: Vec<String>,
    ) -> Result<(Vec<Vec<LabelScore>>, u64), ApiError> {
        let output = |output, inputs| match output {
            Output::Classify { labels } if labels.len() == inputs => Some(labels),
            _ => None,
        };
        let work = |input| Work::Classify { input };
        let Outputs { parts, order, tokens, .. } =
            self.outputs(call, texts, 0, work, output).await?;
        Ok((spread(&order, parts.concat()), tokens))
    }

    /// One score for each document.
    pub async fn rerank(
        &self,
        call: &Call,
        query: &str,
        documents: Vec<String>,
    ) -> Result<Ranking, ApiError> {
        let work = |documents| {
            let query = query.to_owned();
            Work::Rerank { query, documents, params: RerankParams::default() }
        };
        let output = |output, inputs| match output {
            Output::Rerank { scores, .. } if scores.len() == inputs => Some(scores),
            _ => None,
        };
        let Outputs { parts, order, tokens, .. } =
            self.outputs(call, documents, query.len(), work, output).await?;
        Ok(Ranking { scores: spread(&order, parts.concat()), tokens })
    }

    /// Makes a job of each part of `inputs`, equal ones among them once, and returns the outputs with the tokens of
    /// all. The first part that fails fails the request, and cancels the others.
    pub(super) async fn outputs<I: Input + Eq + Hash + Send + 'static, T>(
        &self,
        call: &Call,
        inputs: Vec<I>,
        bytes_shared: usize,
        work: impl Fn(Vec<I>) -> Work,
        output: impl Fn(Output, usize) -> Option<T>,
    ) -> Result<Outputs<T>, ApiError> {
        self.outputs_of(call, distinct(inputs).await, bytes_shared, work, output).await
    }

    pub(super) async fn outputs_of<I: Input, T>(
        &self,
        call: &Call,
        inputs: Distinct<I>,
        bytes_shared: usize,
        work: impl Fn(Vec<I>) -> Work,
        output: impl Fn(Output, usize) -> Option<T>,
    ) -> Result<Outputs<T>, ApiError> {
        let Distinct { items, firsts, order } = inputs;
        let parts = split(items, self.sizes, bytes_shared);
        let parts = parts.map_err(|error| too_long(call.field, &firsts, error))?;
        let deadline = Instant::now() + call.wait;
        let runs = parts.into_iter().map(|Part { start, inputs }| {
            let positions = &firsts[start..start + inputs.len()];
            let work = work(inputs);
            async move {
                let outcome = self.run(call, work, positions, deadline).await?;
                Ok::<_, ApiError>(Done { start, inputs: positions.len(), outcome })
            }
        });
        let runs = stream::iter(runs).buffer_unordered(JOBS_AT_ONCE);
        let mut done: Vec<Done> = runs.try_collect().await?;
        done.sort_by_key(|done| done.start);
        let tokens = done.iter().map(|done| done.outcome.usage.input_tokens).sum();
        let workers = done.iter().map(|done| (done.outcome.worker.clone(), done.inputs)).collect();
        let parts = done.into_iter().map(|Done { inputs, outcome, .. }| {
            // Copied only where another request waits for the same.
            let outcome = Arc::unwrap_or_clone(outcome);
            let found = outcome.output.and_then(|found| output(found, inputs));
            found.ok_or_else(|| {
                tracing::warn!(id = %outcome.id, "a result lacks outputs, or has those of another task");
                ApiError::internal("the result lacks what was asked for").final_for_all()
            })
        });
        Ok(Outputs { parts: parts.collect::<Result<_, _>>()?, workers, order, tokens })
    }

    /// Runs work to its end, or waits for equal work of the tenant that is under way.
    pub(super) async fn run(
        &self,
        call: &Call,
        work: Work,
        positions: &[usize],
        deadline: Instant,
    ) -> Result<Arc<Outcome>, ApiError> {
        let begin = |work| self.clone().compute(call.clone(), work, deadline);
        let landed = match Key::of(&call.tenant, &call.model, &work) {
            None => begin(work).await,
            Some(key) => {
                let begin_shared = |work| begin(work).boxed();
                let Boarded { flight, unused } =
                    self.flights.board(key, deadline, work, begin_shared);
                match (timeout_at(deadline, flight).await, unused) {
                    (Err(_), _) => Err(failures::too_late(call.wait)),
                    // Its time was over, and there is some left here.
                    (Ok(Err(error)), Some(work)) if error.code == TOO_LATE => begin(work).await,
                    (Ok(landed), _) => landed,
                }
            }
        };
        let outcome = landed?;
        match (outcome.state, &outcome.error) {
            (State::Succeeded, _) => Ok(outcome),
            (_, Some(error)) => Err(failed(error, call.field, positions)),
            (_, None) => Err(failed(&unexplained(), call.field, positions)),
        }
    }

    /// Runs one job to its end. Dropped before that, or out of time, it is cancelled.
    async fn compute(self, call: Call, work: Work, deadline: Instant) -> Landed {
        let left = deadline.saturating_duration_since(Instant::now());
        let Submitted { id, pending, trace } = self.submit(&call, work, left, deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = self.client.wait(&id, left).await.map_err(|e| failures::of_wait(&e))?;
        pending.settled();
        trace.ended(&outcome);
        Ok(Arc::new(outcome))
    }

    /// Submits one job of the interactive lane that is of use for so long, and returns once the broker has confirmed
    /// it, which is waited for until `deadline`.
    pub(super) async fn submit(
        &self,
        call: &Call,
        work: Work,
        left: Duration,
        deadline: Instant,
    ) -> Result<Submitted, ApiError> {
        let mut job = Job::new(call.model.clone(), work);
        job.tenant = Some(call.tenant.clone());
        // At least 1: 0 would be no deadline at all.
        job.expires_in_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
        job.result_ttl_s = Some(RESULT_TTL_S);
        let pending = self.canceller.guard(job.id.clone());
        let trace = CallTrace::begin(&job);
        let client = trace.client(&self.client);
        // A broker that is away is waited for no longer than the caller waits.
        let submitted = client.submit_as(job, Lane::Interactive, call.api_key.as_ref());
        match timeout_at(deadline, submitted).await {
            Ok(Ok(id)) => Ok(Submitted { id, pending, trace }),
            // It may be in its queue.
            Err(_) => Err(failures::unreachable()),
            Ok(Err(error @ SubmitError::Unconfirmed { .. })) => Err(failures::of_submit(&error)),
            Ok(Err(error)) => {
                pending.settled();
                Err(failures::of_submit(&error))
            }
        }
    }
}

/// The distinct ones of `inputs`, found on another thread where there are many bytes to compare.
pub(super) async fn distinct<I: Input + Eq + Hash + Send + 'static>(inputs: Vec<I>) -> Distinct<I> {
    let bytes: usize = inputs.iter().map(Input::bytes).sum();
    let before = inputs.len();
    let distinct = if bytes <= IN_PLACE_BYTES_MAX {
        Distinct::of(inputs)
    } else {
        elsewhere(|| Distinct::of(inputs)).await
    };
    let repeated = before - distinct.items.len();
    if repeated > 0 {
        counter!("forebay_gateway_repeated_inputs_total").increment(repeated as u64);
    }
    distinct
}

/// Runs `work` on a thread that may block.
pub(super) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // As it would have been in place; it can't be cancelled once it runs.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

pub(super) fn unexplained() -> JobError {
    JobError::new(ErrorCode::Internal, "the job failed without a reason")
}

/// The error of a part whose inputs stand at these positions of the request.
pub(super) fn failed(error: &JobError, field: &'static str, positions: &[usize]) -> ApiError {
    let answer = failures::of_job(error);
    match error.index.and_then(|index| positions.get(index)) {
        Some(position) => {
            let message = format!("`{field}[{position}]`: {}", answer.message);
            ApiError { message, ..answer }.at(field)
        }
        None => answer,
    }
}

fn too_long(field: &'static str, positions: &[usize], error: TooLong) -> ApiError {
    let TooLong { index, bytes, bytes_max } = error;
    let index = positions.get(index).copied().unwrap_or(index);
    let message = format!(
        "`{field}[{index}]` has {bytes} bytes, the limit is {bytes_max}: send shorter texts"
    );
    failures::of_job(&JobError::new(ErrorCode::PayloadTooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_at_fault_is_named_as_the_request_counts_it() {
        let error = JobError::new(ErrorCode::InputTooLong, "600 tokens, the model reads 512").at(3);
        let answer = failed(&error, "input", &[0, 7, 2_050, 2_051]);
        assert_eq!(answer.message, "`input[2051]`: 600 tokens, the model reads 512");
        assert_eq!((answer.status.as_u16(), answer.param.as_deref()), (400, Some("input")));
    }

    #[test]
    fn a_text_over_the_limit_of_a_job_is_too_large_by_its_position() {
        let answer = too_long("texts", &[0, 7], TooLong { index: 1, bytes: 9, bytes_max: 8 });
        assert_eq!((answer.status.as_u16(), answer.param.as_deref()), (413, Some("texts")));
        assert!(answer.message.starts_with("`texts[7]` has 9 bytes"), "{answer}");
    }
}
