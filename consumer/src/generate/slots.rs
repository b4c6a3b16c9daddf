//! Slots and pages on the device: who has them, and whether there are some for one more.

use forebay_engine::Room;
use forebay_schemas::Lane;

use crate::lanes::URGENT_STREAK_MAX;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub key: Key,
    /// Tokens that it begins with: of its prompt, and of the output that is there already.
    pub tokens: usize,
    /// The most tokens that its output may still have.
    pub output_max: usize,
    /// How many of those pages are set aside for; `None` for as many as is expected of any.
    pub output_expected: Option<usize>,
}

/// A sequence that the device holds, or is about to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) key: Key,
    pub(super) lane: Lane,
    /// Its number among all that ever ran: the higher, the younger. It keeps it when it gives way.
    pub(super) number: u64,
    /// Whether its pages and its tokens are the device's already.
    pub(super) is_open: bool,
    /// Tokens that are computed.
    pub(super) done: usize,
    /// Tokens that are known: computed ones, and those that the next steps compute.
    pub(super) known: usize,
    /// Tokens that it has at most, output included.
    pub(super) known_max: usize,
    /// Tokens that pages are set aside for.
    pub(super) reserved: usize,
}

impl Running {
    pub(super) fn left(&self) -> usize {
        self.known - self.done
    }

    pub(super) fn is_prefill(&self) -> bool {
        self.left() > 1
    }
}

pub(super) fn output_expected(job: &Waiting, expected: Option<usize>) -> usize {
    let expected = job.output_expected.or(expected);
    expected.map_or(job.output_max, |tokens| tokens.min(job.output_max))
}

/// The slots and pages that are set aside.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    pub(super) bounds: &'a Bounds,
    pub(super) running: &'a [Running],
    pub(super) expected: Option<usize>,
}

impl Slots<'_> {
    /// Tokens that pages are set aside for.
    pub(super) fn tokens(&self, job: &Waiting) -> usize {
        job.tokens + output_expected(job, self.expected)
    }

    /// The sequences that have to give way so that a job has a slot and pages; `None` if those are not enough.
    pub(super) fn for_job(&self, lane: Lane, job: &Waiting) -> Option<Vec<Key>> {
        let needed = self.bounds.pages_of(self.tokens(job));
        let most = self.bounds.pages * PAGES_PERCENT / 100;
        let reserved =
            |running: &Running| self.bounds.pages_of(running.reserved.max(running.known));
        let mut pages: usize = self.running.iter().map(reserved).sum();
        let mut slots = self.running.len();
        // One that needs all pages runs alone.
        let fits = |slots: usize, pages: usize| {
            slots == 0 || (slots < self.bounds.sequences_max && pages + needed <= most)
        };
        let mut give_way = Vec::new();
        if lane == Lane::Interactive {
            let batch = || self.running.iter().filter(|running| running.lane == Lane::Batch);
            let spare = batch().count().saturating_sub(self.bounds.batch_share());
            for victim in batch().rev().filter(|running| running.is_open).take(spare) {
                if fits(slots, pages) {
                    break;
                }
                slots -= 1;
                pages -= reserved(victim);
                give_way.push(victim.key);
            }
        }
        fits(slots, pages).then_some(give_way)
    }
}
