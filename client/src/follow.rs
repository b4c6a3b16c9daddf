//! Following a generation: its tokens as they come, and its outcome.
//!
//! Entries of the job's token stream are read when a notice says that there are new ones, and looked for at growing
//! intervals, since notices reach the job's submitter alone and may be lost.

use std::{collections::VecDeque, time::Duration};

use forebay_fabric::Store;
use forebay_schemas::{JobId, Outcome, TokenChunk};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use crate::{client::Client, token_notices::Noticed, wait::WaitError};

/// Entries that are read at once.
const READ_MAX: usize = 256;
/// The first pause before entries are looked for without a notice; it grows by half each time.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The longest such pause once a notice has come: they come, then.
const PAUSE_NOTICED: Duration = Duration::from_secs(2);

/// The next thing of a generation.
#[derive(Debug)]
pub enum Progress {
    /// Tokens.
    Tokens(TokenChunk),
    /// The outcome, which has all of the text.
    Ended(Box<Outcome>),
}

/// A generation that is followed. Dropped, it is not any more; the job goes on.
pub struct Following {
    store: Store,
    id: JobId,
    /// The number of tokens that were returned.
    at: u32,
    read: VecDeque<TokenChunk>,
    noticed: Noticed,
    outcome: BoxFuture<'static, Result<Outcome, WaitError>>,
    pause: Duration,
    /// When entries are looked for without a notice.
    due: Instant,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Client {
    /// Follows a job from token number `from` on, until it has an outcome or `timeout` has passed.
    pub fn follow(&self, id: &JobId, from: u32, timeout: Duration) -> Following {
        let client = self.clone();
        let waited = id.clone();
        Following {
            store: self.store().clone(),
            id: id.clone(),
            at: from,
            read: VecDeque::new(),
            noticed: self.token_notices().watch(id),
            outcome: async move { client.wait(&waited, timeout).await }.boxed(),
            pause: PAUSE_FIRST,
            due: Instant::now(),
        }
    }
}

impl Following {
    /// How many tokens came so far.
    pub fn at(&self) -> u32 {
        self.at
    }

    /// The next tokens, or the outcome, after which there is nothing more. It may be dropped and called again.
    pub async fn next(&mut self) -> Result<Progress, WaitError> {
        loop {
            while let Some(chunk) = self.read.pop_front() {
                if chunk.next() > self.at {
                    self.at = chunk.next();
                    return Ok(Progress::Tokens(chunk));
                }
            }
            tokio::select! {
                biased;
                outcome = &mut self.outcome => {
                    return outcome.map(|outcome| Progress::Ended(Box::new(outcome)));
                }
                () = self.noticed.changed() => self.due = Instant::now(),
                () = tokio::time::sleep_until(self.due) => self.look().await,
            }
        }
    }

    /// Reads what is there. A store that does not answer is asked again.
    async fn look(&mut self) {
        let read = self.store.read_tokens(&self.id, self.at, READ_MAX).await;
        let found = read.unwrap_or_else(|error| {
            tracing::debug!(id = %self.id, %error, "can't read tokens; trying again");
            Vec::new()
        });
        let is_full = found.len() == READ_MAX;
        if !found.is_empty() {
            self.pause = PAUSE_FIRST;
        }
        self.read.extend(found);
        let most = if self.noticed.ever { PAUSE_NOTICED } else { PAUSE_MAX };
        self.due = Instant::now() + if is_full { Duration::ZERO } else { self.pause };
        self.pause = (self.pause * 3 / 2).min(most);
    }
}
