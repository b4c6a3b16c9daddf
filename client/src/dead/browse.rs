//! Browsing the dead letters. They are held while they are looked through, and returned at the end.

use std::collections::BTreeSet;

use forebay_fabric::{
    broker::{BrokerError, Browse, BrowsedMessage},
    clock::now_ms,
};
use forebay_schemas::{JobId, names::DEAD};

use super::{
    filter::DeadLetterFilter,
    info::{DeadLetterInfo, headers_json},
};
use crate::{client::Client, error::ClientError};

/// A dead letter, invisible to all other consumers until its [`DeadLetters`] end. It stays in its queue unless it is
/// replayed or discarded through the [`Client`].
#[derive(Debug)]
pub struct DeadLetter {
    /// Its description.
    pub info: DeadLetterInfo,
    pub(super) message: BrowsedMessage,
}

impl DeadLetter {
    /// The body as it was published.
    pub fn body(&self) -> &[u8] {
        &self.message.body
    }

    /// The headers as JSON.
    pub fn headers(&self) -> serde_json::Map<String, serde_json::Value> {
        headers_json(&self.message.properties)
    }
}

/// The dead letters that a filter selects, from the head of their queue: the oldest first, except that those which
/// were browsed and returned stand behind the others.
#[derive(Debug)]
pub struct DeadLetters {
    client: Client,
    browse: Browse,
    filter: DeadLetterFilter,
    /// Names of the filter that no dead letter was found for so far.
    missing: BTreeSet<JobId>,
    now_ms: u64,
    found: usize,
}

impl Client {
    /// Begins to browse the dead letters that are queued now. They are invisible to all other consumers until
    /// [`DeadLetters::end`], so call that soon.
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<DeadLetters, ClientError> {
        let browse = self.ready_broker().await?.browse(DEAD).await?;
        let missing = filter.names.clone();
        Ok(DeadLetters {
            client: self.clone(),
            browse,
            filter,
            missing,
            now_ms: now_ms(),
            found: 0,
        })
    }

    /// Removes a dead letter for good. The record of its job, if there is one, stays.
    pub async fn discard(&self, dead: DeadLetter) -> Result<(), ClientError> {
        if dead.message.take().await { Ok(()) } else { Err(BrokerError::Closed.into()) }
    }
}

impl DeadLetters {
    /// The next dead letter that the filter selects; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, ClientError> {
        while !self.is_full() {
            let Some(message) = self.browse.next().await? else { return Ok(None) };
            let info = DeadLetterInfo::of(&message, &self.client.inner.config.limits);
            if self.filter.selects(&info, self.now_ms) {
                self.found += 1;
                for name in info.names() {
                    self.missing.remove(name);
                }
                return Ok(Some(DeadLetter { info, message }));
            }
        }
        Ok(None)
    }

    /// How many dead letters have not been browsed yet, at most.
    pub fn left(&self) -> u32 {
        self.browse.left()
    }

    /// The filter's names that no dead letter was found for so far.
    pub fn missing(&self) -> &BTreeSet<JobId> {
        &self.missing
    }

    fn is_full(&self) -> bool {
        self.filter.limit.is_some_and(|limit| self.found >= limit)
    }

    /// Ends browsing. When this returns, every dead letter that was not replayed or discarded is queued again.
    pub async fn end(self) -> Result<(), ClientError> {
        Ok(self.browse.end().await?)
    }
}
