//! Slots and pages on the device: who has them, and whether there are some for one more.

use std::collections::HashMap;

use forebay_engine::Room;
use forebay_schemas::Lane;
use tokio::time::Instant;

use crate::{
    generate::{expect::Expected, prefix::Prefix},
    lanes::URGENT_STREAK_MAX,
};

/// The name of a job in the schedule.
pub type Key = u64;

/// Pages that are never set aside, in hundredths: what was expected is exceeded by one output of ten.
const PAGES_PERCENT: usize = 95;

/// The bounds of a step, and of what the device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most tokens of a step; no fewer than `sequences_max`.
    pub step_tokens: usize,
    /// The most sequences that run at once.
    pub sequences_max: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Pages that the device has.
    pub pages: usize,
}

impl Bounds {
    /// The bounds of a generator with this room.
    pub fn of(room: Room, step_tokens: usize, sequences_max: usize) -> Self {
        let sequences_max = sequences_max.max(1);
        Self {
            step_tokens: step_tokens.max(sequences_max),
            sequences_max,
            page_tokens: room.page_tokens.max(1),
            pages: room.pages(),
        }
    }

    pub(super) fn pages_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }

    /// Slots that the interactive lane leaves to the batch lane.
    fn batch_share(&self) -> usize {
        (self.sequences_max / (URGENT_STREAK_MAX as usize + 1)).max(1)
    }
}

/// A job that waits to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub key: Key,
    /// Tokens that it begins with: of its prompt, and of the output that is there already.
    pub tokens: usize,
    /// The most tokens that its output may still have.
    pub output_max: usize,
    /// How many of those pages are set aside for; `None` for as many as is expected of such a prompt.
    pub output_expected: Option<usize>,
    /// The whole pages of its tokens, which it shares with sequences that begin like it.
    pub prefix: Prefix,
    /// After that its output is worth nothing.
    pub expires: Option<Instant>,
}

/// How far a sequence is on its way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is entered in the journal.
    Entering,
    /// It can be opened.
    Ready,
    /// The device holds it.
    Open,
}

/// A sequence that the device holds, or is about to.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) key: Key,
    pub(super) lane: Lane,
    /// Its number among all that ever ran: the higher, the younger. It keeps it when it gives way.
    pub(super) number: u64,
    pub(super) phase: Phase,
    /// Tokens that are computed.
    pub(super) done: usize,
    /// Tokens that are known: computed ones, and those that the next steps compute.
    pub(super) known: usize,
    /// Tokens that it has at most, output included.
    pub(super) known_max: usize,
    /// Tokens that pages are set aside for.
    pub(super) reserved: usize,
    pub(super) prefix: Prefix,
    pub(super) expires: Option<Instant>,
}

impl Running {
    pub(super) fn left(&self) -> usize {
        self.known - self.done
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_prefill(&self) -> bool {
        self.left() > 1
    }
}

/// Tokens of output that are expected of a job.
pub(super) fn output_expected(job: &Waiting, expected: &Expected) -> usize {
    let expected = job.output_expected.or_else(|| expected.tokens(&job.prefix));
    expected.map_or(job.output_max, |tokens| tokens.min(job.output_max))
}

/// The pages that prefixes of running sequences take, and how many of those have each. It counts once.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixPages(HashMap<u64, usize>);

impl PrefixPages {
    pub(super) fn add(&mut self, prefix: &Prefix) {
        for page in prefix.pages() {
            *self.0.entry(*page).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, prefix: &Prefix) {
        for page in prefix.pages() {
            if let Some(sequences) = self.0.get_mut(page) {
                *sequences -= 1;
                if *sequences == 0 {
                    self.0.remove(page);
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// How many pages of a prefix are not among them.
    fn lacks(&self, prefix: &Prefix) -> usize {
        prefix.pages().iter().filter(|page| !self.0.contains_key(page)).count()
    }
}

/// The slots and pages that are set aside.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    pub(super) bounds: &'a Bounds,
    pub(super) running: &'a [Running],
    pub(super) prefixes: &'a PrefixPages,
    pub(super) expected: &'a Expected,
}

impl Slots<'_> {
    /// Tokens that pages are set aside for.
    pub(super) fn tokens(&self, job: &Waiting) -> usize {
        job.tokens + output_expected(job, self.expected)
    }

    /// Pages that are set aside for a running sequence alone.
    fn own(&self, running: &Running) -> usize {
        let pages = self.bounds.pages_of(running.reserved.max(running.known));
        pages.saturating_sub(running.prefix.pages().len())
    }

    /// The sequences that have to give way so that a job has a slot and pages; `None` if those are not enough.
    pub(super) fn for_job(&self, lane: Lane, job: &Waiting) -> Option<Vec<Key>> {
        let own = self.bounds.pages_of(self.tokens(job)).saturating_sub(job.prefix.pages().len());
        let most = self.bounds.pages * PAGES_PERCENT / 100;
        let mut owned: usize = self.running.iter().map(|running| self.own(running)).sum();
        let mut slots = self.running.len();
        // One that needs all pages runs alone.
        let fits = |slots: usize, owned: usize, prefixes: &PrefixPages| {
            let pages = owned + prefixes.len() + own + prefixes.lacks(&job.prefix);
            slots == 0 || (slots < self.bounds.sequences_max && pages <= most)
        };
        if fits(slots, owned, self.prefixes) {
            return Some(Vec::new());
        }
        if lane != Lane::Interactive {
            return None;
        }
        let mut give_way = Vec::new();
        let mut prefixes = self.prefixes.clone();
        let batch = || self.running.iter().filter(|running| running.lane == Lane::Batch);
        let spare = batch().count().saturating_sub(self.bounds.batch_share());
        let may = |running: &&Running| running.phase != Phase::Entering;
        for victim in batch().rev().filter(may).take(spare) {
            slots -= 1;
            owned -= self.own(victim);
            prefixes.remove(&victim.prefix);
            give_way.push(victim.key);
            if fits(slots, owned, &prefixes) {
                return Some(give_way);
            }
        }
        None
    }
}
