//! Submitting jobs: checked here before anything is sent, confirmed by the broker afterwards.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use forebay_fabric::{
    broker::{BrokerError, Message, Properties},
    clock::now_ms,
};
use forebay_schemas::{
    CodecError, ContentType, ErrorCode, Job, JobError, JobId, Lane, MESSAGE_TYPE, ModelId,
    names::JOBS,
};
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::Client;

mod room;

pub use room::{HeldUp, WhenFull};
use room::{Refused, with_room};

/// A job that is not, or not known to be, in its queue.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The job breaks a rule of the contract; nothing was sent.
    #[error("job {id}: {error}")]
    Invalid {
        /// The job.
        id: JobId,
        /// The rule.
        error: JobError,
    },
    /// The job can't be written; nothing was sent.
    #[error("job {id}: {error}")]
    Codec {
        /// The job.
        id: JobId,
        /// Why.
        error: CodecError,
    },
    /// The fleet has no queue for this model; nothing was sent.
    #[error(
        "no model `{model}` in this fleet; {}. A new model gets its queues from a [models.{model}] table in forebay.toml",
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
        /// For how long it was tried again: [`WhenFull`].
        waited: Duration,
    },
    /// The broker takes no publishes at present, and did not for all the time allowed.
    #[error(
        "RabbitMQ takes no publishes at present: {reason}{}; it wants memory or disk space",
        after(.waited)
    )]
    Blocked {
        /// What the broker says.
        reason: String,
        /// For how long it was tried again: [`WhenFull`].
        waited: Duration,
    },
    /// This user may not submit jobs.
    #[error(
        "RabbitMQ refuses jobs from this user: {reason}; give it the right to write to `forebay.jobs`"
    )]
    Forbidden {
        /// What the broker said.
        reason: String,
    },
    /// No confirmation came in time: the job may be in its queue. Sending it again under its own id
    /// is safe.
    #[error(
        "job {id}: RabbitMQ did not confirm it within {after_ms} ms ({last}); sending it again is safe"
    )]
    Unconfirmed {
        /// The job.
        id: JobId,
        /// How long it was waited for.
        after_ms: u64,
        /// What was seen last.
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
    format!(", and was when it was tried again for {:.1} s", waited.as_secs_f64())
}

fn known_models(known: &[String]) -> String {
    if known.is_empty() {
        return "none is configured here, and no worker is alive".to_owned();
    }
    format!("known here: {}", known.join(", "))
}

/// What is known of models that are not configured here.
#[derive(Default)]
pub(super) struct Routes {
    /// Their queues exist. A fleet's models are few, so this stays small.
    known: HashSet<ModelId>,
    /// They had no queue at this time.
    unknown: HashMap<ModelId, Instant>,
}

/// The longest `expiration` that RabbitMQ takes.
const EXPIRATION_MS_MAX: u64 = u32::MAX as u64;

/// How long a model without a queue is not looked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// The most models remembered as unknown.
const UNKNOWN_MAX: usize = 1_000;

impl Client {
    /// Submits one job and waits until the broker has it on a queue.
    ///
    /// Fills in `submitted_at_ms` and `notify` where the job has none.
    pub async fn submit(&self, mut job: Job, lane: Lane) -> Result<JobId, SubmitError> {
        job.submitted_at_ms.get_or_insert_with(now_ms);
        job.notify.get_or_insert_with(|| self.inner.channel.clone());
        let body = self.checked_body(&job)?;
        self.check_route(&job.model).await?;
        // Listening begins before the job can be answered.
        self.waiter();
        let message = message(&job, lane, body);
        let broker = self.broker().await?;
        let attempt = || async {
            // What is sent into a blocked connection lies there until it is unblocked.
            if let Some(reason) = self.blocked() {
                return Err(Refused::NoRoom(HeldUp::Blocked { reason }));
            }
            tokio::select! {
                biased;
                published = broker.publish(&message) => {
                    published.map_err(|error| Refused::of(error, || self.blocked()))
                }
                // The broker says so only once it was sent something, which it may take later on.
                reason = broker.until_blocked(), if self.when_full == WhenFull::Fail => {
                    Err(Refused::NoRoom(HeldUp::Blocked { reason }))
                }
            }
        };
        match with_room(self.when_full, &self.inner.held_up, attempt).await {
            Ok(()) => Ok(job.id),
            Err((refused, waited)) => Err(self.explain(refused, waited, &job, lane).await),
        }
    }

    /// Submits jobs as they come, many at a time, and tells what became of each, in the order in which
    /// that is known. Nothing is taken from `jobs` while too many wait for their confirmation.
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
        if body.len() > limits.body_bytes_max {
            let (bytes, max) = (body.len(), limits.body_bytes_max);
            return Err(invalid(JobError::new(
                ErrorCode::PayloadTooLarge,
                format!("the job has {bytes} bytes, the limit is {max}: split it into several"),
            )));
        }
        Ok(body)
    }

    async fn check_route(&self, model: &ModelId) -> Result<(), SubmitError> {
        if self.has_queues(model).await? {
            return Ok(());
        }
        Err(SubmitError::UnknownModel { model: model.clone(), known: self.known_models().await })
    }

    /// Whether the model has queues: looked up once, then remembered.
    pub(super) async fn has_queues(&self, model: &ModelId) -> Result<bool, BrokerError> {
        // Configured models have queues: this client's own connection declares them.
        if self.inner.config.models.contains_key(model) {
            return Ok(true);
        }
        let mut routes = self.inner.routes.lock().await;
        if routes.known.contains(model) {
            return Ok(true);
        }
        if routes.unknown.get(model).is_some_and(|at| at.elapsed() < UNKNOWN_FOR) {
            return Ok(false);
        }
        let broker = self.broker().await?;
        broker.ready_within(self.connect_timeout()).await?;
        if broker.queue_depth(&Lane::Batch.queue(model)).await?.is_some() {
            routes.known.insert(model.clone());
            return Ok(true);
        }
        if routes.unknown.len() >= UNKNOWN_MAX {
            routes.unknown.clear();
        }
        routes.unknown.insert(model.clone(), Instant::now());
        Ok(false)
    }

    async fn known_models(&self) -> Vec<String> {
        // For a message only: what Redis can't tell is left out.
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
            Refused::NoRoom(HeldUp::QueueFull) => SubmitError::QueueFull { model, lane, waited },
            Refused::NoRoom(HeldUp::Blocked { reason }) => SubmitError::Blocked { reason, waited },
            Refused::NoRoute => {
                SubmitError::UnknownModel { model, known: self.known_models().await }
            }
            Refused::Forbidden { reason } => SubmitError::Forbidden { reason },
            Refused::Unconfirmed { after_ms, last } => {
                SubmitError::Unconfirmed { id: job.id.clone(), after_ms, last }
            }
        }
    }

    fn blocked(&self) -> Option<String> {
        self.inner.broker.get()?.blocked()
    }
}

fn message(job: &Job, lane: Lane, body: Vec<u8>) -> Message {
    let properties = Properties::default()
        .with_content_type(ContentType::Msgpack.as_str().into())
        .with_message_id(job.id.as_str().into())
        .with_type(MESSAGE_TYPE.into())
        // Persistent.
        .with_delivery_mode(2);
    // So that the job is answered in time even when no worker runs.
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
