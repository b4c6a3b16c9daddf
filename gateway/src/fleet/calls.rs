//! [`Fleet`]: synchronous calls. Each becomes one or more jobs of the interactive lane with a deadline, whose results
//! are waited for by notification.

use std::time::Duration;

use forebay_client::{Client, Job, Lane, ModelId, Outcome, Output, SubmitError, Work};
use forebay_schemas::{
    EmbedOutput, EmbedParams, ErrorCode, JobError, LabelScore, RerankParams, SparseParams,
    SparseVector, State,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{
    abandon::Canceller,
    split::{Part, Sizes, TooLong, split},
};
use crate::{error::ApiError, failures, trace::CallTrace};

/// Jobs of one request that are in their queues at once: enough to keep several workers busy, and few enough that one
/// request does not fill a queue.
const JOBS_AT_ONCE: usize = 8;
/// How long a result is kept that its caller takes at once, in seconds: for a caller that reads it late.
const RESULT_TTL_S: u64 = 600;

/// The fleet, as requests see it.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The client that submits and waits.
    pub client: Client,
    canceller: Canceller,
    sizes: Sizes,
}

/// A request on whose behalf jobs are made.
#[derive(Debug, Clone)]
pub struct Call {
    /// The model.
    pub model: ModelId,
    /// Who is billed.
    pub tenant: String,
    /// How long the caller waits.
    pub wait: Duration,
    /// The field that the texts came in, for errors.
    pub field: &'static str,
}

/// Vectors with the tokens that they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The vectors of each job, in the texts' order; all of one dimension.
    pub parts: Vec<EmbedOutput>,
    /// Tokens read.
    pub tokens: u64,
}

/// Scores of documents with the tokens that they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// One score for each document, in the documents' order.
    pub scores: Vec<f32>,
    /// Tokens read.
    pub tokens: u64,
}

/// One job's share of a request and its result.
struct Done {
    start: usize,
    inputs: usize,
    outcome: Outcome,
}

impl Fleet {
    /// The fleet behind `client`, with the limits of its jobs.
    pub fn new(client: Client, canceller: Canceller, inputs_max: usize, bytes_max: usize) -> Self {
        Self { client, canceller, sizes: Sizes { inputs_max, bytes_max } }
    }

    /// One vector for each text.
    pub async fn embed(
        &self,
        call: &Call,
        texts: Vec<String>,
        params: &EmbedParams,
    ) -> Result<Vectors, ApiError> {
        let work = |input| Work::Embed { input, params: params.clone() };
        let (outputs, tokens) = self.outputs(call, texts, 0, work, embedded).await?;
        let dim = outputs.first().map(|part| part.dim);
        if outputs.iter().any(|part| Some(part.dim) != dim) {
            // Two versions of a model at once, while one replaces the other.
            return Err(ApiError::unavailable(
                "unavailable",
                "the model is being replaced: try again",
            ));
        }
        Ok(Vectors { parts: outputs, tokens })
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
        let (outputs, tokens) = self.outputs(call, texts, 0, work, output).await?;
        Ok((outputs.concat(), tokens))
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
        let (outputs, tokens) = self.outputs(call, texts, 0, work, output).await?;
        Ok((outputs.concat(), tokens))
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
        let (outputs, tokens) = self.outputs(call, documents, query.len(), work, output).await?;
        Ok(Ranking { scores: outputs.concat(), tokens })
    }

    /// Makes a job of each part of `texts` and returns the outputs in their order, with the tokens of all. The first
    /// part that fails fails the request, and cancels the others.
    async fn outputs<T>(
        &self,
        call: &Call,
        texts: Vec<String>,
        bytes_shared: usize,
        work: impl Fn(Vec<String>) -> Work,
        output: impl Fn(Output, usize) -> Option<T>,
    ) -> Result<(Vec<T>, u64), ApiError> {
        let parts = split(texts, self.sizes, bytes_shared).map_err(|e| too_long(call.field, e))?;
        let deadline = Instant::now() + call.wait;
        let runs = parts.into_iter().map(|Part { start, texts }| {
            let inputs = texts.len();
            let work = work(texts);
            async move {
                let outcome = self.run(call, work, start, deadline).await?;
                Ok::<_, ApiError>(Done { start, inputs, outcome })
            }
        });
        let runs = stream::iter(runs).buffer_unordered(JOBS_AT_ONCE);
        let mut done: Vec<Done> = runs.try_collect().await?;
        done.sort_by_key(|done| done.start);
        let tokens = done.iter().map(|done| done.outcome.usage.input_tokens).sum();
        let outputs = done.into_iter().map(|Done { inputs, outcome, .. }| {
            let found = outcome.output.and_then(|found| output(found, inputs));
            found.ok_or_else(|| {
                tracing::warn!(id = %outcome.id, "a result lacks outputs, or has those of another task");
                ApiError::internal("the result lacks what was asked for").final_for_all()
            })
        });
        Ok((outputs.collect::<Result<_, _>>()?, tokens))
    }

    /// Runs one job to its end. Dropped before that, or out of time, it is cancelled.
    async fn run(
        &self,
        call: &Call,
        work: Work,
        start: usize,
        deadline: Instant,
    ) -> Result<Outcome, ApiError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut job = Job::new(call.model.clone(), work);
        job.tenant = Some(call.tenant.clone());
        // At least 1: 0 would be no deadline at all.
        job.expires_in_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
        job.result_ttl_s = Some(RESULT_TTL_S);
        let pending = self.canceller.guard(job.id.clone());
        let trace = CallTrace::begin(&job);
        let id = match trace.client(&self.client).submit(job, Lane::Interactive).await {
            Ok(id) => id,
            // It may be in its queue.
            Err(error @ SubmitError::Unconfirmed { .. }) => {
                return Err(failures::of_submit(&error));
            }
            Err(error) => {
                pending.settled();
                return Err(failures::of_submit(&error));
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = self.client.wait(&id, left).await.map_err(|e| failures::of_wait(&e))?;
        pending.settled();
        trace.ended(&outcome);
        match (outcome.state, &outcome.error) {
            (State::Succeeded, _) => Ok(outcome),
            (_, Some(error)) => Err(failed(error, call.field, start)),
            (_, None) => Err(failed(&unexplained(), call.field, start)),
        }
    }
}

fn embedded(output: Output, inputs: usize) -> Option<EmbedOutput> {
    match output {
        Output::Embed(vectors) if vectors.count() == inputs => Some(vectors),
        _ => None,
    }
}

fn unexplained() -> JobError {
    JobError::new(ErrorCode::Internal, "the job failed without a reason")
}

/// The error of a part whose first text is the request's `start`-th.
fn failed(error: &JobError, field: &'static str, start: usize) -> ApiError {
    let answer = failures::of_job(error);
    match error.index {
        Some(index) => {
            let message = format!("`{field}[{}]`: {}", start + index, answer.message);
            ApiError { message, ..answer }.at(field)
        }
        None => answer,
    }
}

fn too_long(field: &'static str, error: TooLong) -> ApiError {
    let TooLong { index, bytes, bytes_max } = error;
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
        let answer = failed(&error, "input", 2_048);
        assert_eq!(answer.message, "`input[2051]`: 600 tokens, the model reads 512");
        assert_eq!((answer.status.as_u16(), answer.param.as_deref()), (400, Some("input")));
    }

    #[test]
    fn a_text_over_the_limit_of_a_job_is_too_large_by_its_position() {
        let answer = too_long("texts", TooLong { index: 7, bytes: 9, bytes_max: 8 });
        assert_eq!((answer.status.as_u16(), answer.param.as_deref()), (413, Some("texts")));
        assert!(answer.message.starts_with("`texts[7]` has 9 bytes"), "{answer}");
    }
}
