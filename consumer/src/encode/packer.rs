//! How inputs become batches: a pure, bounded packer with two lanes, first come first served in each.
//!
//! Inputs of many jobs share a batch, and a job that does not fit is continued in the next. Tokens are
//! packed without padding, so a batch is full when its tokens are, whatever the lengths. A batch has inputs of one lane
//! alone: an urgent one that was filled up with others would take longer, and who waits for it would wait for them too.
//! Which lane's turn it is is decided where batches are taken from, at the device.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use forebay_engine::{Finish, InputType, PackedBatch, Tokens};
use forebay_schemas::{JobId, Lane};
use tokio::time::Instant;

use crate::{in_flight::InFlight, journal::Step, lanes::Lanes};

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
    entries: VecDeque<Unpacked<J>>,
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
    pub fn new(limits: BatchLimits) -> Self {
        let lanes = Lanes::each(|_| Waiting { entries: VecDeque::new(), tokens: 0 });
        Self { limits, lanes, items: 0, alone: 0 }
    }

    /// Changes how many tokens a batch may have, from the next one on.
    pub fn set_tokens_max(&mut self, tokens_max: usize) {
        self.limits.tokens_max = tokens_max;
    }

    /// Adds inputs behind those of their lane.
    pub fn push(&mut self, lane: Lane, entry: Entry<J>) {
        self.items += entry.inputs.len();
        self.alone += usize::from(entry.alone);
        let lane = self.lanes.of_mut(lane);
        lane.tokens += entry.inputs.iter().map(|input| input.ids.len()).sum::<usize>();
        lane.entries.push_back(Unpacked { entry, packed: 0 });
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
        let heads = Lane::ALL.into_iter().filter_map(|lane| self.lanes.of(lane).entries.front());
        heads.map(|unpacked| unpacked.entry.arrived_at).min()
    }

    /// The next batch of a lane: as much as fits. Empty only when nothing waits in the lane.
    pub fn pack(&mut self, lane: Lane) -> Batch<J> {
        let mut batch = Batch { alone: false, pieces: Vec::new(), packed: PackedBatch::new() };
        while let Some(mut unpacked) = self.lanes.of_mut(lane).entries.pop_front() {
            let alone = unpacked.entry.alone;
            batch.alone |= alone && batch.packed.is_empty();
            let done =
                (!alone || batch.packed.is_empty()) && self.take(lane, &mut unpacked, &mut batch);
            if !done {
                self.lanes.of_mut(lane).entries.push_front(unpacked);
                return batch;
            }
            self.alone -= usize::from(alone);
            if alone {
                return batch;
            }
        }
        batch
    }

    /// Moves the inputs of one entry that fit into the batch. Returns whether those were all.
    fn take(&mut self, lane: Lane, unpacked: &mut Unpacked<J>, batch: &mut Batch<J>) -> bool {
        let first = unpacked.packed;
        let finish = unpacked.entry.finish;
        let input_type = unpacked.entry.input_type;
        let done = loop {
            let Some(input) = unpacked.entry.inputs.get_mut(unpacked.packed) else { break true };
            let fits = batch.packed.tokens() + input.ids.len() <= self.limits.tokens_max
                && batch.packed.sequences() < self.limits.items_max;
            if !fits && !batch.packed.is_empty() {
                break false;
            }
            let ids = std::mem::take(&mut input.ids);
            batch.packed.push_as(input_type, &ids, input.first_len, finish);
            unpacked.packed += 1;
            self.lanes.of_mut(lane).tokens -= ids.len();
            self.items -= 1;
        };
        let count = unpacked.packed - first;
        if count > 0 {
            let first = unpacked.entry.first + first;
            batch.pieces.push(Piece { job: unpacked.entry.job.clone(), first, count });
        }
        done
    }
}

#[cfg(test)]
mod tests;
