//! Submitting jobs: checked here before anything is sent, confirmed by the broker afterwards.

use std::{collections::BTreeSet, time::Duration};

use forebay_fabric::{
    broker::{BrokerError, HeaderValue, Headers, Message, Properties},
    clock::now_ms,
};
use forebay_schemas::{
    CodecError, ContentType, ErrorCode, Job, JobError, JobId, KeyId, Lane, MESSAGE_TYPE, ModelId,
    TraceContext,
    names::{HEADER_API_KEY, JOBS},
    trace::{TRACEPARENT, TRACESTATE},
};
use futures_util::{Stream, StreamExt};

use crate::{
    backpressure::{HeldUp, Refused, WhenFull, with_backpressure},
    client::Client,
};

/// The error of a submit: the job is not, or not known to be, in its queue.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The job breaks a rule of the contract, or is larger than the broker takes; it is not in its queue.
    #[error("job {id}: {error}")]
    Invalid {
        /// The job.
        id: JobId,
        /// The rule, and how the job breaks it.
        error: JobError,
    },
    /// The job can't be encoded; nothing was sent.
    #[error("job {id}: {error}")]
    Codec {
        /// The job.
        id: JobId,
        /// Why.
        error: CodecError,
    },
    /// The fleet has no queue for this model; nothing was sent.
    #[error(
        "no model `{model}` in this fleet; {}. A new model gets its queues from a [models.{model}] table in \
         forebay.toml",
        known_models(.known)
    )]
    UnknownModel {
        /// The model that was asked for.
        model: ModelId,
        /// The models that are configured here or have a worker.
        known: Vec<String>,
    },
    /// The model's queue is full; the job is not in it.
    #[error(
        "the {lane} queue of `{model}` is full{}; send the job again later, or start more workers",
        after(.waited)
    )]
    QueueFull {
        /// The model.
        model: ModelId,
        /// The lane.
        lane: Lane,
        /// How long submitting was retried: [`WhenFull`].
        waited: Duration,
    },
    /// The broker takes no publishes at present, and took none while submitting was retried.
    #[error(
        "RabbitMQ takes no publishes at present: {reason}{}; it wants memory or disk space",
        after(.waited)
    )]
    Blocked {
        /// The reason that the broker gave.
        reason: String,
        /// How long submitting was retried: [`WhenFull`].
        waited: Duration,
    },
    /// The broker's user may not publish jobs.
    #[error(
        "RabbitMQ refuses jobs from this user: {reason}; give it the right to write to `forebay.jobs`"
    )]
    Forbidden {
        /// The reason that the broker gave.
        reason: String,
    },
    /// No confirmation came in time: the job may be in its queue. Submitting it again under the same id is safe,
    /// because a result is written once.
    #[error(
        "job {id}: RabbitMQ did not confirm it within {after_ms} ms ({last}); sending it again is safe"
    )]
    Unconfirmed {
        /// The job.
        id: JobId,
        /// How long the confirmation was waited for.
        after_ms: u64,
        /// The last state of the connection.
        last: String,
    },
    /// The broker can't be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

fn after(waited: &Duration) -> String {
    if waited.is_zero() {
        return String::new();
    }
    format!(" after {:.1} s of retries", waited.as_secs_f64())
}

fn known_models(known: &[String]) -> String {
    if known.is_empty() {
        return "none is configured here, and no worker is alive".to_owned();
    }
    format!("known here: {}", known.join(", "))
}

/// The longest `expiration` that RabbitMQ takes.
const EXPIRATION_MS_MAX: u64 = u32::MAX as u64;

impl Client {
    /// Submits one job and waits until the broker has confirmed it. Returns the job's id.
    ///
    /// Fills in `submitted_at_ms` and `notify` where the job has none.
    pub async fn submit(&self, job: Job, lane: Lane) -> Result<JobId, SubmitError> {
        self.submit_as(job, lane, None).await
    }

    /// Submits one job that came with an API key, by whose id its usage is grouped.
    pub async fn submit_as(
        &self,
        mut job: Job,
        lane: Lane,
        api_key: Option<&KeyId>,
    ) -> Result<JobId, SubmitError> {
        job.submitted_at_ms.get_or_insert_with(now_ms);
        job.notify.get_or_insert_with(|| self.inner.channel.clone());
        let body = self.checked_body(&job)?;
        self.check_route(&job.model).await?;
        let mut message = message(&job, lane, body);
        if let Some(headers) = headers(self.trace.as_ref(), api_key) {
            message.properties = message.properties.with_headers(headers);
        }
        let broker = self.broker().await?;
        let attempt = || async {
            // A message sent into a blocked connection stays there until the broker unblocks it.
            if let Some(reason) = self.blocked() {
                return Err(Refused::Backpressure(HeldUp::Blocked { reason }));
            }
            tokio::select! {
                biased;
                published = broker.publish(&message) => {
                    published.map_err(|error| Refused::of(error, || self.blocked()))
                }
                // The broker reports that it is blocked only once a message was sent, which it may still take later.
                reason = broker.until_blocked(), if self.when_full == WhenFull::Fail => {
                    Err(Refused::Backpressure(HeldUp::Blocked { reason }))
                }
            }
        };
        match with_backpressure(self.when_full, &self.inner.held_up, attempt).await {
            Ok(()) => Ok(job.id),
            Err((refused, waited)) => Err(self.explain(refused, waited, &job, lane).await),
        }
    }

    /// Submits a stream of jobs, many at a time, and yields the result of each in the order of completion. While
    /// `confirms_in_flight_max` jobs wait for their confirmation, none is taken from `jobs` (backpressure).
    pub fn submit_many<'a>(
        &'a self,
        jobs: impl Stream<Item = Job> + Send + 'a,
        lane: Lane,
    ) -> impl Stream<Item = (JobId, Result<(), SubmitError>)> + Send + 'a {
        let submit = move |job: Job| async move {
            let id = job.id.clone();
            (id, self.submit(job, lane).await.map(drop))
        };
        jobs.map(submit).buffer_unordered(self.inner.config.broker.confirms_in_flight_max)
    }

    fn checked_body(&self, job: &Job) -> Result<Vec<u8>, SubmitError> {
        let limits = &self.inner.config.limits;
        let invalid = |error| SubmitError::Invalid { id: job.id.clone(), error };
        job.validate(limits).map_err(invalid)?;
        let body = job
            .encode(ContentType::Msgpack)
            .map_err(|error| SubmitError::Codec { id: job.id.clone(), error })?;
        // Beyond either limit it would be refused by a worker, or by the broker.
        let bytes_max = limits.body_bytes_max.min(self.inner.config.broker.message_bytes_max);
        if body.len() > bytes_max {
            return Err(too_large(job, body.len(), bytes_max));
        }
        Ok(body)
    }

    async fn check_route(&self, model: &ModelId) -> Result<(), SubmitError> {
        if self.has_queues(model).await? {
            return Ok(());
        }
        Err(SubmitError::UnknownModel { model: model.clone(), known: self.known_models().await })
    }

    async fn known_models(&self) -> Vec<String> {
        // For an error message only: without Redis the models of live workers are left out.
        let workers = self.inner.store.workers().await.unwrap_or_default();
        let configured = self.inner.config.models.keys().map(ToString::to_string);
        let known: BTreeSet<String> =
            configured.chain(workers.into_iter().map(|worker| worker.model)).collect();
        known.into_iter().collect()
    }

    async fn explain(
        &self,
        refused: Refused,
        waited: Duration,
        job: &Job,
        lane: Lane,
    ) -> SubmitError {
        let model = job.model.clone();
        match refused {
            Refused::Backpressure(HeldUp::QueueFull) => {
                SubmitError::QueueFull { model, lane, waited }
            }
            Refused::Backpressure(HeldUp::Blocked { reason }) => {
                SubmitError::Blocked { reason, waited }
            }
            Refused::NoRoute => {
                SubmitError::UnknownModel { model, known: self.known_models().await }
            }
            Refused::Forbidden { reason } => SubmitError::Forbidden { reason },
            Refused::TooLarge { bytes, bytes_max } => too_large(job, bytes, bytes_max),
            Refused::Unconfirmed { after_ms, last } => {
                SubmitError::Unconfirmed { id: job.id.clone(), after_ms, last }
            }
        }
    }
}

fn too_large(job: &Job, bytes: usize, bytes_max: usize) -> SubmitError {
    let message =
        format!("the job has {bytes} bytes, the limit is {bytes_max}: split it into several");
    let error = JobError::new(ErrorCode::PayloadTooLarge, message);
    SubmitError::Invalid { id: job.id.clone(), error }
}

fn message(job: &Job, lane: Lane, body: Vec<u8>) -> Message {
    let properties = Properties::default()
        .with_content_type(ContentType::Msgpack.as_str().into())
        .with_message_id(job.id.as_str().into())
        .with_type(MESSAGE_TYPE.into())
        // Persistent.
        .with_delivery_mode(2);
    // The broker dead-letters an expired job, so that it is answered in time even when no worker runs.
    let properties = match job.expires_in_ms.filter(|&ms| ms <= EXPIRATION_MS_MAX) {
        Some(ms) => properties.with_expiration(ms.to_string().into()),
        None => properties,
    };
    Message {
        exchange: JOBS.to_owned(),
        routing_key: lane.routing_key(&job.model),
        properties,
        body,
    }
}

/// The headers of a job's message, if it has any.
fn headers(trace: Option<&TraceContext>, api_key: Option<&KeyId>) -> Option<Headers> {
    if trace.is_none() && api_key.is_none() {
        return None;
    }
    let mut headers = Headers::default();
    let mut insert = |name: &str, text: &str| {
        headers.insert(name.into(), HeaderValue::LongString(text.into()));
    };
    if let Some(context) = trace {
        insert(TRACEPARENT, &context.traceparent());
        if let Some(state) = context.tracestate() {
            insert(TRACESTATE, state);
        }
    }
    if let Some(id) = api_key {
        insert(HEADER_API_KEY, id.as_str());
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_trace_and_no_header_without_one() {
        assert!(headers(None, None).is_none());
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(parent, Some("a=b")).unwrap();
        let traced = headers(Some(&context), None);
        let read = forebay_fabric::intake::trace_context(traced.as_ref());
        assert_eq!(read.as_ref(), Some(&context));
        assert_eq!(read.unwrap().tracestate(), Some("a=b"));
    }
}
