//! Dead letters: looking at them, trying their jobs anew, dropping them.

use std::collections::BTreeSet;

use forebay_fabric::{
    broker::{BrokerError, Browse, BrowsedMessage},
    clock::now_ms,
};
use forebay_schemas::{JobId, names::DEAD};

use super::{Client, ClientError};

mod filter;
mod letter;
mod replay;

pub use filter::LetterFilter;
pub use letter::LetterInfo;
pub use replay::{Kept, ReplayError};

/// A dead letter, held back from everybody else until its [`DeadLetters`] end. It stays unless it is
/// replayed or dropped through the [`Client`].
#[derive(Debug)]
pub struct DeadLetter {
    /// What there is to know of it.
    pub info: LetterInfo,
    letter: BrowsedMessage,
}

impl DeadLetter {
    /// The body as it was published.
    pub fn body(&self) -> &[u8] {
        &self.letter.body
    }

    /// The headers as JSON.
    pub fn headers(&self) -> serde_json::Map<String, serde_json::Value> {
        letter::headers(&self.letter.properties)
    }
}

/// The dead letters that a filter lets through, from the head of their queue: the oldest first, but that
/// those which were looked at and returned come behind the others.
#[derive(Debug)]
pub struct DeadLetters {
    client: Client,
    browse: Browse,
    filter: LetterFilter,
    /// Names of the filter that nothing has been found for so far.
    missing: BTreeSet<JobId>,
    now_ms: u64,
    found: usize,
}

impl Client {
    /// Begins to look through the dead letters that lie there now. Meanwhile they are held back from
    /// everybody else: end it soon.
    pub async fn dead_letters(&self, filter: LetterFilter) -> Result<DeadLetters, ClientError> {
        let broker = self.broker().await?;
        broker.ready_within(self.connect_timeout()).await?;
        let browse = broker.browse(DEAD).await?;
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

    /// Takes a dead letter away for good. Its job keeps the record that it has.
    pub async fn drop_letter(&self, letter: DeadLetter) -> Result<(), ClientError> {
        if letter.letter.take().await { Ok(()) } else { Err(BrokerError::Closed.into()) }
    }
}

impl DeadLetters {
    /// The next letter that the filter lets through; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, ClientError> {
        while !self.is_full() {
            let Some(letter) = self.browse.next().await? else { return Ok(None) };
            let info = LetterInfo::of(&letter, &self.client.inner.config.limits);
            if self.filter.lets_through(&info, self.now_ms) {
                self.found += 1;
                for name in info.names() {
                    self.missing.remove(name);
                }
                return Ok(Some(DeadLetter { info, letter }));
            }
        }
        Ok(None)
    }

    /// How many letters have not been looked at yet, at most.
    pub fn left(&self) -> u32 {
        self.browse.left()
    }

    /// Those ids and letters of the filter that nothing has been found for so far.
    pub fn missing(&self) -> &BTreeSet<JobId> {
        &self.missing
    }

    fn is_full(&self) -> bool {
        self.filter.limit.is_some_and(|limit| self.found >= limit)
    }

    /// Ends it: once this is back, all that was not taken lies among the dead letters again.
    pub async fn end(self) -> Result<(), ClientError> {
        Ok(self.browse.end().await?)
    }
}
