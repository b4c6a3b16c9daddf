//! The seam that generators of all devices stand behind.

use crate::error::EngineError;
use crate::generate::sample::{PickError, Picked, Sampling, TokenMask};

/// A model that continues sequences of tokens, a step at a time, driven by one thread at a time.
///
/// It keeps memory for every open sequence, in pages of [`Room::page_tokens`] tokens. A step holds any number of new
/// tokens of any number of sequences: chunks of prompts and single picked tokens are the same rows. The tokens of a
/// sequence are the same bits whatever else a step holds, however its prompt was cut into chunks, and whether its
/// prefix was computed or found in the cache.
///
/// An error of [`Generator::begin`] has changed nothing: the same step, or a part of it, can be begun again.
pub trait Generator: Send {
    /// Opens a sequence that will begin with `tokens`, and takes the longest prefix of them that the cache holds. At
    /// least one token is left to compute. Only sequences with the same `salt` share a prefix.
    ///
    /// Nothing is computed: the tokens from [`Opened::cached`] on belong into steps.
    fn open(&mut self, tokens: &[u32], salt: u64) -> Result<Opened, EngineError>;

    /// Begins a step. A device that computes by itself goes on after this returns, and takes up to
    /// [`Generator::ahead`] steps before the first of them is waited for.
    ///
    /// A chunk that can't be computed is [`EngineError::Item`] with its index in the step, too few free pages are
    /// [`EngineError::NoPages`].
    fn begin(&mut self, step: &Step<'_>) -> Result<PendingPicks, EngineError>;

    /// Ends a sequence. Its pages are free, or stay in the cache until others need them. An id that is not open is
    /// none of this generator's, and ignored.
    fn close(&mut self, id: SequenceId, keep: Keep);

    /// The memory that is left.
    fn room(&self) -> Room;

    /// How many steps are worth beginning before the first is waited for. At least one.
    fn ahead(&self) -> usize {
        1
    }
}

/// An open sequence of one generator. Ids are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub(crate) u64);

/// A sequence that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its id in steps.
    pub id: SequenceId,
    /// How many of its first tokens need not be computed. They count as the sequence's already.
    pub cached: usize,
}

/// The fate of a closed sequence's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Whole pages stay, for sequences that begin in the same way, until their memory is needed.
    Prefix,
    /// Pages that no other sequence uses are free at once.
    Nothing,
}

/// New tokens of several sequences, which are computed together.
#[derive(Debug, Clone, Default)]
pub struct Step<'a> {
    /// At most one chunk a sequence.
    pub rows: Vec<Chunk<'a>>,
}

/// The next tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The sequence.
    pub id: SequenceId,
    /// One token or more, which follow those that the sequence has already.
    pub tokens: &'a [u32],
    /// How the token after the last one is picked; `None` for a part of a prompt that has more to come.
    pub pick: Option<Pick<'a>>,
}

/// How a token is picked.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// The sequence's parameters.
    pub sampling: &'a Sampling,
    /// How many of the sequence's tokens are its prompt; those behind them are its output. A resumed sequence has
    /// output among the tokens that it was opened with.
    pub prompt_tokens: usize,
    /// The tokens that may be picked; `None` for all.
    pub mask: Option<&'a TokenMask>,
}

/// The picks of a step, both lists in the order of its chunks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picks {
    /// A token for each chunk that asked for one, but those in `failed`. It is not yet among the sequence's tokens: the
    /// next step brings it, if the sequence goes on.
    pub picked: Vec<(SequenceId, Picked)>,
    /// Sequences for which no token could be picked. Their tokens were computed as the others'.
    pub failed: Vec<(SequenceId, PickError)>,
}

/// The picks of a step that was begun.
pub struct PendingPicks(Box<dyn FnOnce() -> Result<Picks, EngineError> + Send>);

impl PendingPicks {
    /// Picks that `wait` blocks for.
    pub fn new(wait: impl FnOnce() -> Result<Picks, EngineError> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Picks that are already made.
    pub fn done(picks: Picks) -> Self {
        Self::new(move || Ok(picks))
    }

    /// Blocks until the step is computed.
    pub fn wait(self) -> Result<Picks, EngineError> {
        (self.0)()
    }
}

/// The memory of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Pages that hold nothing.
    pub pages_free: usize,
    /// Pages of open sequences. One that several share counts once.
    pub pages_held: usize,
    /// Pages of closed sequences, which are free as soon as they are needed.
    pub pages_cached: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Bytes that a token takes in all layers together.
    pub bytes_per_token: usize,
    /// The most tokens of a sequence, prompt and output together.
    pub tokens_max: usize,
}

impl Room {
    /// Pages that a step can take: free ones and cached ones.
    pub fn pages_left(&self) -> usize {
        self.pages_free + self.pages_cached
    }

    /// Pages of all kinds.
    pub fn pages(&self) -> usize {
        self.pages_free + self.pages_held + self.pages_cached
    }

    /// Pages that so many tokens take.
    pub fn pages_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens.max(1))
    }
}
