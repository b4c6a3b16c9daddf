//! How inputs become batches: a pure, bounded, first-come-first-served packer with two lanes.
//!
//! Inputs of many jobs share a batch, and a job that does not fit is continued in the next. Tokens are
//! packed without padding, so a batch is full when its tokens are, whatever the lengths.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use forebay_engine::{Finish, PackedBatch, Tokens};
use forebay_schemas::{JobId, Lane};
use tokio::time::Instant;

use crate::{encode::in_flight::InFlight, journal::Step, lanes::URGENT_STREAK_MAX};

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

/// A job that is to be packed.
#[derive(Debug)]
pub struct Entry<J = Arc<InFlight>> {
    /// The job.
    pub job: J,
    /// Its inputs.
    pub inputs: Vec<Tokens>,
    /// How its vectors are finished.
    pub finish: Finish,
    /// Whether it must not share a batch: it is a suspect, on the device of a worker that crashed or was cut off.
    pub alone: bool,
    /// When it came.
    pub arrived_at: Instant,
}

/// A job of which some inputs are not packed yet.
#[derive(Debug)]
struct Unpacked<J> {
    entry: Entry<J>,
    /// The first input that is not packed yet.
    next: usize,
}

/// Jobs that wait to be packed.
#[derive(Debug)]
pub struct Packer<J = Arc<InFlight>> {
    limits: BatchLimits,
    interactive: VecDeque<Unpacked<J>>,
    batch: VecDeque<Unpacked<J>>,
    tokens: usize,
    items: usize,
    /// Jobs that must not share a batch.
    alone: usize,
    /// Batches in a row that began with the urgent lane while both lanes waited.
    urgent_streak: u32,
}

impl<J: Clone> Packer<J> {
    /// An empty packer.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            interactive: VecDeque::new(),
            batch: VecDeque::new(),
            tokens: 0,
            items: 0,
            alone: 0,
            urgent_streak: 0,
        }
    }

    /// Changes how many tokens a batch may have, from the next one on.
    pub fn set_tokens_max(&mut self, tokens_max: usize) {
        self.limits.tokens_max = tokens_max;
    }

    /// Adds a job's inputs behind those of its lane.
    pub fn push(&mut self, lane: Lane, entry: Entry<J>) {
        self.tokens += entry.inputs.iter().map(|input| input.ids.len()).sum::<usize>();
        self.items += entry.inputs.len();
        self.alone += usize::from(entry.alone);
        self.lane(lane).push_back(Unpacked { entry, next: 0 });
    }

    /// Removes the jobs that `is_lost` names and of which nothing is packed yet.
    pub fn remove_unstarted(&mut self, is_lost: impl Fn(&J) -> bool) -> Vec<J> {
        let mut removed = Vec::new();
        for lane in Lane::ALL {
            let waiting = std::mem::take(self.lane(lane));
            for pending in waiting {
                if pending.next > 0 || !is_lost(&pending.entry.job) {
                    self.lane(lane).push_back(pending);
                    continue;
                }
                let inputs = &pending.entry.inputs;
                self.tokens -= inputs.iter().map(|input| input.ids.len()).sum::<usize>();
                self.items -= inputs.len();
                self.alone -= usize::from(pending.entry.alone);
                removed.push(pending.entry.job);
            }
        }
        removed
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Unpacked<J>> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Batch => &mut self.batch,
        }
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether waiting for batch-mates is of no use: a batch is full, or a job must not have any.
    pub fn is_full(&self) -> bool {
        self.alone > 0
            || self.tokens >= self.limits.tokens_max
            || self.items >= self.limits.items_max
    }

    /// When the longest-waiting job came.
    pub fn oldest(&self) -> Option<Instant> {
        let heads = [self.interactive.front(), self.batch.front()];
        heads.into_iter().flatten().map(|pending| pending.entry.arrived_at).min()
    }

    /// The next batch: as much as fits, the urgent lane first. Empty only when nothing waits. After
    /// [`URGENT_STREAK_MAX`] batches in a row that were packed so while both lanes waited, the batch lane is first
    /// once; a batch that is packed while one lane is empty starts the count over.
    pub fn pack(&mut self) -> Batch<J> {
        let both_wait = !self.interactive.is_empty() && !self.batch.is_empty();
        let order = if both_wait && self.urgent_streak >= URGENT_STREAK_MAX {
            self.urgent_streak = 0;
            [Lane::Batch, Lane::Interactive]
        } else {
            self.urgent_streak = if both_wait { self.urgent_streak + 1 } else { 0 };
            Lane::ALL
        };
        let mut batch = Batch { alone: false, pieces: Vec::new(), packed: PackedBatch::new() };
        for lane in order {
            while let Some(mut pending) = self.lane(lane).pop_front() {
                let alone = pending.entry.alone;
                batch.alone |= alone && batch.packed.is_empty();
                let done =
                    (!alone || batch.packed.is_empty()) && self.take(&mut pending, &mut batch);
                if !done {
                    self.lane(lane).push_front(pending);
                    return batch;
                }
                self.alone -= usize::from(alone);
                if alone {
                    return batch;
                }
            }
        }
        batch
    }

    /// Moves the inputs of one job that fit into the batch. Returns whether those were all.
    fn take(&mut self, pending: &mut Unpacked<J>, batch: &mut Batch<J>) -> bool {
        let first = pending.next;
        let done = loop {
            let Some(input) = pending.entry.inputs.get_mut(pending.next) else { break true };
            let fits = batch.packed.tokens() + input.ids.len() <= self.limits.tokens_max
                && batch.packed.sequences() < self.limits.items_max;
            if !fits && !batch.packed.is_empty() {
                break false;
            }
            let ids = std::mem::take(&mut input.ids);
            batch.packed.push_pair(&ids, input.first_len, pending.entry.finish);
            pending.next += 1;
            self.tokens -= ids.len();
            self.items -= 1;
        };
        let count = pending.next - first;
        if count > 0 {
            batch.pieces.push(Piece { job: pending.entry.job.clone(), first, count });
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn packer(tokens_max: usize, items_max: usize) -> Packer<usize> {
        Packer::new(BatchLimits { tokens_max, items_max })
    }

    fn tokens(ids: Vec<u32>) -> Tokens {
        Tokens { first_len: ids.len(), ids, truncated: false }
    }

    /// `inputs` sequences of `tokens` each.
    fn texts(inputs: usize, count: usize) -> Vec<Tokens> {
        vec![tokens(vec![7; count]); inputs]
    }

    fn entry(job: usize, inputs: Vec<Tokens>) -> Entry<usize> {
        Entry { job, inputs, finish: Finish::default(), alone: false, arrived_at: Instant::now() }
    }

    fn pieces(batch: &Batch<usize>) -> Vec<(usize, usize, usize)> {
        batch.pieces.iter().map(|piece| (piece.job, piece.first, piece.count)).collect()
    }

    #[test]
    fn small_jobs_share_a_batch_and_a_large_one_is_split() {
        let mut packer = packer(100, 50);
        packer.push(Lane::Batch, entry(1, texts(1, 30)));
        packer.push(Lane::Batch, entry(2, texts(9, 20)));
        assert_eq!(pieces(&packer.pack()), [(1, 0, 1), (2, 0, 3)]);
        assert_eq!(pieces(&packer.pack()), [(2, 3, 5)]);
        assert_eq!(pieces(&packer.pack()), [(2, 8, 1)]);
        assert!(packer.is_empty() && packer.tokens() == 0);
    }

    #[test]
    fn lost_jobs_leave_unless_they_are_begun() {
        let mut packer = packer(50, 50);
        packer.push(Lane::Batch, entry(1, texts(3, 30)));
        packer.push(Lane::Batch, Entry { alone: true, ..entry(2, texts(2, 30)) });
        packer.push(Lane::Interactive, entry(3, texts(1, 30)));
        assert_eq!(pieces(&packer.pack()), [(3, 0, 1)]);
        assert_eq!(pieces(&packer.pack()), [(1, 0, 1)]);
        packer.push(Lane::Interactive, entry(4, texts(1, 5)));
        assert_eq!(packer.remove_unstarted(|job| *job != 4), [2]);
        assert_eq!(packer.tokens(), 65);
        assert_eq!(pieces(&packer.pack()), [(4, 0, 1), (1, 1, 1)]);
        assert_eq!(pieces(&packer.pack()), [(1, 2, 1)]);
        assert!(packer.is_empty() && !packer.is_full());
    }

    #[test]
    fn an_input_over_the_budget_is_computed_alone() {
        let mut packer = packer(100, 50);
        packer.push(Lane::Batch, entry(1, texts(2, 200)));
        assert_eq!(pieces(&packer.pack()), [(1, 0, 1)]);
        assert_eq!(pieces(&packer.pack()), [(1, 1, 1)]);
    }

    #[test]
    fn the_urgent_lane_goes_first_but_not_for_ever() {
        let mut packer = packer(10, 50);
        packer.push(Lane::Batch, entry(0, texts(2, 10)));
        packer.push(Lane::Interactive, entry(1, texts(20, 10)));
        let order: Vec<usize> = (0..10).map(|_| packer.pack().pieces[0].job).collect();
        assert_eq!(order, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_suspect_shares_no_batch_and_waits_for_no_batch_mates() {
        let mut packer = packer(100, 50);
        packer.push(Lane::Batch, entry(1, texts(1, 10)));
        assert!(!packer.is_full());
        packer.push(Lane::Batch, Entry { alone: true, ..entry(2, texts(3, 40)) });
        packer.push(Lane::Batch, entry(3, texts(2, 10)));
        packer.push(Lane::Interactive, entry(4, texts(1, 10)));
        assert!(packer.is_full());
        assert_eq!(pieces(&packer.pack()), [(4, 0, 1), (1, 0, 1)]);
        assert_eq!(pieces(&packer.pack()), [(2, 0, 2)], "it may take several batches");
        assert_eq!(pieces(&packer.pack()), [(2, 2, 1)], "and none of them is shared");
        assert!(!packer.is_full());
        assert_eq!(pieces(&packer.pack()), [(3, 0, 2)]);
    }

    proptest! {
        #[test]
        fn every_input_is_packed_once_in_order_and_within_limits(
            jobs in vec((any::<bool>(), any::<bool>(), vec(0_usize..40, 1..12)), 1..20),
            tokens_max in 1_usize..100,
            items_max in 1_usize..10,
        ) {
            let mut packer = packer(tokens_max, items_max);
            for (job, (urgent, alone, lengths)) in jobs.iter().enumerate() {
                let lane = if *urgent { Lane::Interactive } else { Lane::Batch };
                let inputs = lengths.iter().map(|&length| tokens(vec![job as u32; length])).collect();
                packer.push(lane, Entry { alone: *alone, ..entry(job, inputs) });
            }
            let mut packed: BTreeMap<usize, usize> = BTreeMap::new();
            while !packer.is_empty() {
                let batch = packer.pack();
                let sequences = batch.packed.sequences();
                prop_assert!(sequences > 0 && sequences <= items_max);
                prop_assert!(batch.packed.tokens() <= tokens_max || sequences == 1);
                let shared = batch.pieces.len() > 1;
                prop_assert!(!shared || batch.pieces.iter().all(|piece| !jobs[piece.job].1));
                let mut row = 0;
                for piece in &batch.pieces {
                    let next = packed.entry(piece.job).or_default();
                    prop_assert_eq!(piece.first, *next);
                    *next += piece.count;
                    for index in piece.first..piece.first + piece.count {
                        let range = batch.packed.cu_seqlens().range(row);
                        prop_assert_eq!(range.len(), jobs[piece.job].2[index]);
                        let ids = &batch.packed.token_ids()[range];
                        prop_assert!(ids.iter().all(|&id| id as usize == piece.job));
                        row += 1;
                    }
                }
                prop_assert_eq!(row, sequences);
            }
            for (job, (_, _, lengths)) in jobs.iter().enumerate() {
                prop_assert_eq!(packed.get(&job), Some(&lengths.len()));
            }
        }
    }
}
