//! Replaying a dead letter: the record of its job is removed, its attempts start over, and it is published again.

use forebay_fabric::{
    broker::{BrokerError, Message, PublishError, for_republish},
    clock::now_ms,
    store::ResultRecord,
};
use forebay_schemas::{JobId, Outcome, State, names::JOBS};

use super::{browse::DeadLetter, info};
use crate::{client::Client, error::ClientError};

/// The reason for which a dead letter was not replayed. Its text says what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// Its job succeeded.
    #[error("its job succeeded, and the result stands; drop the dead letter")]
    Succeeded,
    /// The job's expiry has passed, so it would only expire again.
    #[error(
        "its job's own time ran out {since_s} s ago, so it would expire again; submit it again as a new job"
    )]
    TimeIsUp {
        /// For how many seconds it has been up.
        since_s: u64,
    },
    /// It has no job id, so it would only become a dead letter again.
    #[error("it names no job, so there is no id to answer under; drop the dead letter")]
    Nameless,
    /// No queue takes its routing key, so the broker would only refuse it.
    #[error("no queue takes its routing key; add the model to this fleet, or drop the dead letter")]
    NoQueue,
    /// The value at the job's result key is no result of Forebay's, and is not ours to remove.
    #[error(
        "the value at its job's result key is no result, and stays; remove it, then replay again"
    )]
    NoResult,
    /// Its record changed on every attempt to remove it.
    #[error("its job is being answered just now; look at the result, then replay again")]
    Contested,
}

/// The error of a replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// This dead letter can't be replayed; others may be.
    #[error(transparent)]
    Kept(#[from] Kept),
    /// The broker or Redis failed. The dead letter is in its queue as before, and replaying it again is safe.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// How often the removal of a record that changes concurrently is tried.
const REMOVALS_MAX: u32 = 3;

impl Client {
    /// Whether [`Client::replay`] would replay this dead letter, and if not, why. Changes nothing.
    pub async fn can_replay(&self, dead: &DeadLetter) -> Result<(), ReplayError> {
        let id = self.check(dead).await?;
        self.record_to_remove(&id).await?;
        Ok(())
    }

    /// Publishes the job of a dead letter again, with its attempts starting over, and removes the record of its
    /// failure. The dead letter is removed once the broker has confirmed the job.
    pub async fn replay(&self, dead: DeadLetter) -> Result<(), ReplayError> {
        let id = self.check(&dead).await?;
        let broker = self.broker().await.map_err(ClientError::from)?;
        let removed = self.remove_record(&id).await?;
        self.inner.store.forget_suspicion(&id).await.map_err(ClientError::from)?;
        // A reader between these two steps finds no result, as with any job that waits.
        if let Err(error) = broker.publish(&as_job(&dead)).await {
            self.restore(&error, removed).await;
            return Err(ClientError::from(error).into());
        }
        if dead.message.take().await { Ok(()) } else { Err(closed()) }
    }

    /// Checks everything that can prevent a replay, except for the record. Returns the id of the job.
    async fn check(&self, dead: &DeadLetter) -> Result<JobId, ReplayError> {
        let id = dead.info.job.clone().ok_or(Kept::Nameless)?;
        let model = dead.info.model.as_ref().ok_or(Kept::NoQueue)?;
        let job = info::job(&dead.message, &self.inner.config.limits);
        if let Some(expires_at_ms) = job.and_then(|job| job.expires_at_ms())
            && let Some(since_ms) = now_ms().checked_sub(expires_at_ms)
        {
            return Err(Kept::TimeIsUp { since_s: since_ms / 1_000 }.into());
        }
        if !self.has_queues(model).await.map_err(ClientError::from)? {
            return Err(Kept::NoQueue.into());
        }
        Ok(id)
    }

    /// The bytes of the job's record, if it has one; an error if it must not be removed.
    async fn record_to_remove(&self, id: &JobId) -> Result<Option<Vec<u8>>, ReplayError> {
        let found = self.inner.store.read_results(std::slice::from_ref(id)).await;
        let found = found.map_err(ClientError::from)?.into_iter().flatten().next();
        let Some(bytes) = found else { return Ok(None) };
        match Outcome::decode(&bytes) {
            Ok(outcome) if outcome.state == State::Succeeded => Err(Kept::Succeeded.into()),
            Ok(_) => Ok(Some(bytes)),
            Err(_) => Err(Kept::NoResult.into()),
        }
    }

    /// Removes the record that was read and no other: a success written in between stays.
    async fn remove_record(&self, id: &JobId) -> Result<Option<ResultRecord>, ReplayError> {
        for _ in 0..REMOVALS_MAX {
            let Some(bytes) = self.record_to_remove(id).await? else { return Ok(None) };
            let retracted = self.inner.store.retract_result(id, &bytes).await;
            if let Some(ttl_s) = retracted.map_err(ClientError::from)? {
                return Ok(Some(ResultRecord {
                    id: id.clone(),
                    bytes,
                    ttl_s,
                    notify: None,
                    ends_tokens: false,
                    usage: None,
                }));
            }
        }
        Err(Kept::Contested.into())
    }

    /// Puts the record back where the job is known not to be in its queue, so that its failure is reported as before.
    /// A job that may be in its queue goes on without a record.
    async fn restore(&self, error: &PublishError, removed: Option<ResultRecord>) {
        let is_refused = matches!(
            error,
            PublishError::Full { .. }
                | PublishError::Unroutable { .. }
                | PublishError::TooLarge { .. }
        );
        let Some(record) = removed.filter(|_| is_refused) else { return };
        if let Err(error) = self.inner.store.write_results(&[record]).await {
            tracing::warn!(%error, "can't put a record back; its dead letter can still be replayed");
        }
    }
}

fn as_job(dead: &DeadLetter) -> Message {
    Message {
        exchange: JOBS.to_owned(),
        routing_key: dead.message.routing_key.clone(),
        properties: for_republish(&dead.message.properties),
        body: dead.message.body.clone(),
    }
}

fn closed() -> ReplayError {
    ClientError::from(BrokerError::Closed).into()
}
