//! Trying the job of a dead letter anew: its record goes, its attempts start over, it is published again.

use forebay_fabric::{
    broker::{BrokerError, Message, PublishError, for_republish},
    clock::now_ms,
    store::ResultRecord,
};
use forebay_schemas::{JobId, Outcome, State, names::JOBS};

use super::{DeadLetter, letter};
use crate::client::{Client, ClientError};

/// Why a letter was left where it is. It says what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// There is nothing to try anew.
    #[error("its job succeeded, and the result stands; drop the letter")]
    Succeeded,
    /// It would only expire again.
    #[error("its job's own time ran out {since_s} s ago, so it would expire again; submit it anew")]
    TimeIsUp {
        /// For how many seconds it has been up.
        since_s: u64,
    },
    /// It would only become a dead letter again.
    #[error("it names no job, so nobody could be answered; drop the letter")]
    Nameless,
    /// It would only be refused.
    #[error("no queue takes its routing key; add the model to this fleet, or drop the letter")]
    NoQueue,
    /// Somebody else's value lies at the job's result key, and is not ours to remove.
    #[error(
        "what lies at its job's result key is no result, and stays; remove it, then replay again"
    )]
    NoResult,
    /// Its record changed whenever it was looked at.
    #[error("its job is being answered just now; look at the result, then replay again")]
    Contested,
}

/// A dead letter was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// For a reason of its own: others may be.
    #[error(transparent)]
    Kept(#[from] Kept),
    /// The fleet did not do what was asked. The letter is where it was, and replaying it again is
    /// harmless.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// How often a record that changes under our hands is looked at.
const LOOKS_MAX: u32 = 3;

impl Client {
    /// Whether [`Client::replay`] would replay this letter. Changes nothing.
    pub async fn can_replay(&self, letter: &DeadLetter) -> Result<(), ReplayError> {
        let id = self.check(letter).await?;
        self.record_to_remove(&id).await?;
        Ok(())
    }

    /// Tries the job of a dead letter anew: removes its record, unless that is a success, and starts
    /// its attempts over. The letter goes once the job is in its queue.
    pub async fn replay(&self, letter: DeadLetter) -> Result<(), ReplayError> {
        let id = self.check(&letter).await?;
        let broker = self.broker().await.map_err(ClientError::from)?;
        let removed = self.remove_record(&id).await?;
        self.inner.store.forget_suspicion(&id).await.map_err(ClientError::from)?;
        // A reader who comes between these two finds no result, as with any job that waits.
        if let Err(error) = broker.publish(&as_job(&letter)).await {
            self.restore(&error, removed).await;
            return Err(ClientError::from(error).into());
        }
        if letter.letter.take().await { Ok(()) } else { Err(closed()) }
    }

    /// Everything that speaks against a replay, but for the record. The id of the job otherwise.
    async fn check(&self, dead: &DeadLetter) -> Result<JobId, ReplayError> {
        let id = dead.info.job.clone().ok_or(Kept::Nameless)?;
        let model = dead.info.model.as_ref().ok_or(Kept::NoQueue)?;
        let job = letter::job(&dead.letter, &self.inner.config.limits);
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

    /// The bytes of the job's record, if it has one that may go.
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

    /// Removes the record that was looked at and no other: a success that came in between stays.
    async fn remove_record(&self, id: &JobId) -> Result<Option<ResultRecord>, ReplayError> {
        for _ in 0..LOOKS_MAX {
            let Some(bytes) = self.record_to_remove(id).await? else { return Ok(None) };
            let retracted = self.inner.store.retract_result(id, &bytes).await;
            if let Some(ttl_s) = retracted.map_err(ClientError::from)? {
                return Ok(Some(ResultRecord { id: id.clone(), bytes, ttl_s, notify: None }));
            }
        }
        Err(Kept::Contested.into())
    }

    /// Puts the record back where the job is known not to be in its queue: whoever asks for it is told
    /// of its failure as before. Where it may be, it goes on without one.
    async fn restore(&self, error: &PublishError, removed: Option<ResultRecord>) {
        let (Some(record), PublishError::Full { .. } | PublishError::Unroutable { .. }) =
            (removed, error)
        else {
            return;
        };
        if let Err(error) = self.inner.store.write_results(&[record]).await {
            tracing::warn!(%error, "can't put a record back; its letter is still there to be replayed");
        }
    }
}

fn as_job(dead: &DeadLetter) -> Message {
    Message {
        exchange: JOBS.to_owned(),
        routing_key: dead.letter.routing_key.clone(),
        properties: for_republish(&dead.letter.properties),
        body: dead.letter.body.clone(),
    }
}

fn closed() -> ReplayError {
    ClientError::from(BrokerError::Closed).into()
}
