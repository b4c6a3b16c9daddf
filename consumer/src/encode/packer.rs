//! How inputs become batches: a pure packer with two lanes, tenants in fair order in each.
//!
//! Inputs of many jobs share a batch, and a job that does not fit is continued in the next. Tokens are
//! packed without padding, so a batch is full when its tokens are, whatever the lengths. A batch has inputs of one lane
//! alone: an urgent one that was filled up with others would take longer, and who waits for it would wait for them too.
//! Which lane's turn it is is decided where batches are taken from, at the device.

use std::{ops::Range, sync::Arc};

use forebay_engine::{Finish, InputType, PackedBatch, Tokens};
use forebay_schemas::{JobId, Lane};
use tokio::time::Instant;

use crate::{
    fair::{Fair, Served, TURN_TOKENS, Weights},
    in_flight::InFlight,
    journal::Step,
    lanes::Lanes,
};

/// The limits of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The most tokens, unless one input alone has more.
    pub tokens_max: usize,
    /// The most inputs.
    pub items_max: usize,
}

/// Consecutive inputs of one job in a batch. Each piece holds a handle `J` to its job.
#[derive(Debug)]
pub struct Piece<J = Arc<InFlight>> {
    /// The job.
    pub job: J,
    /// The index of the first one in the job.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// Inputs that are computed together.
#[derive(Debug)]
pub struct Batch<J = Arc<InFlight>> {
    /// Whether it holds a job that must not share a batch.
    pub alone: bool,
    /// The pieces, in the order of the packed sequences.
    pub pieces: Vec<Piece<J>>,
    /// The packed sequences.
    pub packed: PackedBatch,
}

impl Step for Batch {
    fn is_alone(&self) -> bool {
        self.alone
    }

    fn runs(&self) -> impl Iterator<Item = (&JobId, Range<usize>)> + Send {
        self.pieces.iter().map(|piece| (&piece.job.job.id, piece.first..piece.first + piece.count))
    }
}

/// A part of a job that is to be packed.
#[derive(Debug)]
pub struct Entry<J = Arc<InFlight>> {
    /// The job.
    pub job: J,
    /// The index of the part's first input in the job.
    pub first: usize,
    /// The part's inputs.
    pub inputs: Vec<Tokens>,
    /// How its vectors are finished.
    pub finish: Finish,
    /// How the model is to read its texts.
    pub input_type: InputType,
    /// Whether it must not share a batch: it is a suspect, on the device of a worker that died.
    pub alone: bool,
    /// When it came.
    pub arrived_at: Instant,
}

/// An entry of which some inputs are not packed yet.
#[derive(Debug)]
struct Unpacked<J> {
    entry: Entry<J>,
    /// How many of its inputs are packed.
    packed: usize,
}

/// The entries of one lane that wait to be packed.
#[derive(Debug)]
struct Waiting<J> {
    entries: Fair<Unpacked<J>>,
    tokens: usize,
}

/// Parts of jobs that wait to be packed.
#[derive(Debug)]
pub struct Packer<J = Arc<InFlight>> {
    limits: BatchLimits,
    lanes: Lanes<Waiting<J>>,
    items: usize,
    /// Entries that must not share a batch.
    alone: usize,
}

impl<J: Clone> Packer<J> {
    /// An empty packer.
    pub fn new(limits: BatchLimits, weights: &Weights) -> Self {
        let lanes = Lanes::each(|_| Waiting { entries: Fair::new(weights.clone()), tokens: 0 });
        Self { limits, lanes, items: 0, alone: 0 }
    }

    /// Changes how many tokens a batch may have, from the next one on.
    pub fn set_tokens_max(&mut self, tokens_max: usize) {
        self.limits.tokens_max = tokens_max;
    }

    /// Adds inputs behind those of their lane and tenant.
    pub fn push(&mut self, lane: Lane, tenant: Option<&str>, entry: Entry<J>) {
        self.items += entry.inputs.len();
        self.alone += usize::from(entry.alone);
        let lane = self.lanes.of_mut(lane);
        lane.tokens += entry.inputs.iter().map(|input| input.ids.len()).sum::<usize>();
        let arrived_at = entry.arrived_at;
        lane.entries.push(tenant, Unpacked { entry, packed: 0 }, arrived_at);
    }

    /// Tokens that wait in a lane.
    pub fn tokens(&self, lane: Lane) -> usize {
        self.lanes.of(lane).tokens
    }

    /// Tokens that wait.
    pub fn all_tokens(&self) -> usize {
        Lane::ALL.into_iter().map(|lane| self.tokens(lane)).sum()
    }

    /// Whether a lane has anything to be packed.
    pub fn waits(&self, lane: Lane) -> bool {
        !self.lanes.of(lane).entries.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether waiting for batch-mates is of no use: a batch is full, or a job must not have any.
    pub fn is_full(&self) -> bool {
        self.alone > 0
            || self.all_tokens() >= self.limits.tokens_max
            || self.items >= self.limits.items_max
    }

    /// When the longest-waiting entry came.
    pub fn oldest(&self) -> Option<Instant> {
        Lane::ALL.into_iter().filter_map(|lane| self.lanes.of(lane).entries.oldest()).min()
    }

    /// The next batch of a lane: as much as fits, tenants by their turns. Empty only when nothing waits in the lane.
    pub fn pack(&mut self, lane: Lane, now: Instant) -> Batch<J> {
        let mut batch = Batch { alone: false, pieces: Vec::new(), packed: PackedBatch::new() };
        let limits = self.limits;
        let waiting = self.lanes.of_mut(lane);
        let before = waiting.tokens;
        while !batch.alone {
            let tokens_max = if waiting.entries.is_shared() { TURN_TOKENS } else { usize::MAX };
            let mut done_alone = false;
            let is_served = waiting.entries.turn(now, |unpacked| {
                let served = unpacked.take(limits, tokens_max, &mut batch)?;
                done_alone = served.is_done && unpacked.entry.alone;
                Some(served)
            });
            self.alone -= usize::from(done_alone);
            if !is_served {
                break;
            }
        }
        waiting.tokens = before - batch.packed.tokens();
        self.items -= batch.packed.sequences();
        batch
    }
}

impl<J: Clone> Unpacked<J> {
    /// Moves inputs of so many tokens into the batch, as far as they fit, but at least one. One that must not share a
    /// batch takes all of an empty one. `None` if not even one fits.
    fn take(
        &mut self,
        limits: BatchLimits,
        tokens_max: usize,
        batch: &mut Batch<J>,
    ) -> Option<Served> {
        let Self { entry, packed } = self;
        if entry.alone && !batch.packed.is_empty() {
            return None;
        }
        batch.alone = entry.alone;
        let tokens_max = if entry.alone { usize::MAX } else { tokens_max };
        let first = *packed;
        let before = batch.packed.tokens();
        let is_done = loop {
            let Some(input) = entry.inputs.get_mut(*packed) else { break true };
            let taken = batch.packed.tokens() - before;
            let fits = batch.packed.tokens() + input.ids.len() <= limits.tokens_max
                && batch.packed.sequences() < limits.items_max;
            let is_over = *packed > first && taken + input.ids.len() > tokens_max;
            if is_over || (!fits && !batch.packed.is_empty()) {
                break false;
            }
            let ids = std::mem::take(&mut input.ids);
            batch.packed.push_as(entry.input_type, &ids, input.first_len, entry.finish);
            *packed += 1;
        };
        let count = *packed - first;
        if count > 0 {
            let first = entry.first + first;
            batch.pieces.push(Piece { job: entry.job.clone(), first, count });
        }
        (count > 0 || is_done).then(|| Served { cost: batch.packed.tokens() - before, is_done })
    }
}

#[cfg(test)]
mod tests;
