//! The schedule: which sequences the device holds, and which of their tokens the next step computes. It decides and
//! does nothing itself, so properties of it can be tested.
//!
//! - Every step has a token of each sequence that is past its prompt, and fills up with chunks of prompts.
//! - A sequence is admitted if pages for its prompt and for as much output as is expected can be set aside. Where that
//!   was too little, the youngest sequence gives way: its tokens are kept, and it goes on before others of its lane.
//! - Interactive jobs go before those of the batch lane, and may take the slot of running ones; a ninth is the batch
//!   lane's, of turns as of slots. Among tenants of a lane the order is fair.

use std::collections::VecDeque;

use forebay_schemas::Lane;
use tokio::time::Instant;

pub use crate::generate::slots::{Bounds, Key, Waiting};
use crate::{
    fair::{Fair, Served, Weights},
    generate::{
        expect::Expected,
        slots::{Running, Slots, output_expected},
    },
    lanes::{Lanes, URGENT_STREAK_MAX},
};

/// The admission of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The job.
    pub key: Key,
    /// Those that have to give way to it first.
    pub give_way: Vec<Key>,
}

/// The next thing that the device does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It computes so many tokens of each of these; none if there is nothing to do.
    Step(Vec<(Key, usize)>),
    /// Pages are short: this sequence gives way, and the schedule is asked again.
    GiveWay(Key),
}

/// The schedule.
#[derive(Debug)]
pub struct Schedule {
    bounds: Bounds,
    waiting: Lanes<Fair<Waiting>>,
    /// Those that gave way, the oldest first, with their numbers: they go before those that wait.
    returning: Lanes<VecDeque<(u64, Waiting)>>,
    /// In the order of their numbers.
    running: Vec<Running>,
    numbers: u64,
    /// Interactive admissions in a row while the batch lane waited.
    admitted_streak: u32,
    /// Steps in a row in which only interactive prompts were computed while one of the batch lane waited.
    prefill_streak: u32,
    expected: Expected,
}

impl Schedule {
    /// A schedule without jobs.
    pub fn new(bounds: Bounds, weights: &Weights) -> Self {
        Self {
            bounds,
            waiting: Lanes::each(|_| Fair::new(weights.clone())),
            returning: Lanes::default(),
            running: Vec::new(),
            numbers: 0,
            admitted_streak: 0,
            prefill_streak: 0,
            expected: Expected::default(),
        }
    }

    /// Its bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// A job comes.
    pub fn push(&mut self, lane: Lane, tenant: Option<&str>, job: Waiting, now: Instant) {
        self.waiting.of_mut(lane).push(tenant, job, now);
    }

    /// Whether any job waits or runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && !self.waits(Lane::Interactive) && !self.waits(Lane::Batch)
    }

    /// How many sequences run, or are about to.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn waits(&self, lane: Lane) -> bool {
        !self.returning.of(lane).is_empty() || !self.waiting.of(lane).is_empty()
    }

    /// The next job that is to run, if any can. From now on it has its slot; [`Self::opened`] says when the device
    /// has it.
    pub fn admit(&mut self, now: Instant) -> Option<Admission> {
        let batch_waits = self.waits(Lane::Batch);
        let is_batch_s_turn = batch_waits && self.admitted_streak >= URGENT_STREAK_MAX;
        let lane = match self.waits(Lane::Interactive) {
            true if !is_batch_s_turn => Lane::Interactive,
            _ if batch_waits => Lane::Batch,
            _ => return None,
        };
        // What the one whose turn it is waits for is not given to the other lane, or a large job would never have it.
        let admission = self.admit_of(lane, now)?;
        let in_a_row = lane == Lane::Interactive && batch_waits;
        self.admitted_streak = if in_a_row { self.admitted_streak + 1 } else { 0 };
        Some(admission)
    }

    fn admit_of(&mut self, lane: Lane, now: Instant) -> Option<Admission> {
        let slots = Slots {
            bounds: &self.bounds,
            running: &self.running,
            expected: self.expected.tokens(),
        };
        if let Some((number, job)) = self.returning.of(lane).front().copied() {
            let give_way = slots.for_job(lane, &job)?;
            self.returning.of_mut(lane).pop_front();
            return Some(self.take(lane, number, job, give_way));
        }
        let mut taken = None;
        self.waiting.of_mut(lane).turn(now, |job| {
            taken = Some((*job, slots.for_job(lane, job)?));
            Some(Served { cost: slots.tokens(job), is_done: true })
        });
        let (job, give_way) = taken?;
        self.numbers += 1;
        Some(self.take(lane, self.numbers, job, give_way))
    }

    fn take(&mut self, lane: Lane, number: u64, job: Waiting, give_way: Vec<Key>) -> Admission {
        for key in &give_way {
            self.give_way(*key);
        }
        let expected = self.expected.tokens();
        let running = Running {
            key: job.key,
            lane,
            number,
            is_open: false,
            done: 0,
            known: job.tokens,
            known_max: job.tokens + job.output_max,
            reserved: job.tokens + output_expected(&job, expected),
        };
        let at = self.running.partition_point(|other| other.number < number);
        self.running.insert(at, running);
        Admission { key: job.key, give_way }
    }

    /// The device has the sequence, and `cached` of its tokens need not be computed.
    pub fn opened(&mut self, key: Key, cached: usize) {
        if let Some(running) = self.find(key) {
            running.is_open = true;
            running.done = cached.min(running.known.saturating_sub(1));
        }
    }

    fn find(&mut self, key: Key) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.key == key)
    }

    /// A step or a sequence that gives way, where so many pages can be taken.
    pub fn next(&mut self, pages_left: usize) -> Next {
        let mut left = self.bounds.step_tokens;
        let mut pages = pages_left;
        let mut rows = Vec::new();
        let open = || self.running.iter().filter(|running| running.is_open);
        for running in open().filter(|running| running.left() == 1) {
            let needed = self.more_pages(running, 1);
            if needed > pages {
                return self.youngest();
            }
            pages -= needed;
            left = left.saturating_sub(1);
            rows.push((running.key, 1));
        }
        let mut prefills: Vec<Running> = open().filter(|it| it.is_prefill()).copied().collect();
        let batch_first = self.prefill_streak >= URGENT_STREAK_MAX;
        prefills.sort_by_key(|it| ((it.lane == Lane::Batch) != batch_first, it.number));
        let mut computed = Lanes::<bool>::default();
        for running in &prefills {
            let tokens = running.left().min(left).min(self.fitting(running, pages));
            if tokens == 0 {
                break;
            }
            pages -= self.more_pages(running, tokens);
            left -= tokens;
            rows.push((running.key, tokens));
            *computed.of_mut(running.lane) = true;
        }
        if rows.is_empty() && !prefills.is_empty() {
            return self.youngest();
        }
        let batch_waits = prefills.iter().any(|it| it.lane == Lane::Batch) && !computed.batch;
        let in_a_row = computed.interactive && batch_waits;
        self.prefill_streak = if in_a_row { self.prefill_streak + 1 } else { 0 };
        Next::Step(rows)
    }

    /// Pages that so many more tokens take.
    fn more_pages(&self, running: &Running, tokens: usize) -> usize {
        self.bounds.pages_of(running.done + tokens) - self.bounds.pages_of(running.done)
    }

    /// How many more tokens these pages suffice for.
    fn fitting(&self, running: &Running, pages: usize) -> usize {
        let held = self.bounds.pages_of(running.done) + pages;
        held.saturating_mul(self.bounds.page_tokens) - running.done
    }

    /// The youngest sequence, of the batch lane if that has one, gives way. Never the oldest of all: so that one ends.
    fn youngest(&self) -> Next {
        let mut has_oldest = false;
        let mut youngest = None;
        for running in self.running.iter().filter(|running| running.is_open) {
            if !has_oldest {
                has_oldest = true;
            } else if running.lane == Lane::Batch
                || youngest.is_none_or(|it: &Running| it.lane == running.lane)
            {
                youngest = Some(running);
            }
        }
        match youngest {
            Some(victim) => Next::GiveWay(victim.key),
            None => Next::Step(Vec::new()),
        }
    }

    /// A sequence gives way: it waits again, before others of its lane.
    pub fn give_way(&mut self, key: Key) {
        let Some(running) = self.remove(key) else { return };
        let output_max = running.known_max - running.known;
        // What was expected of it was too little.
        let job =
            Waiting { key, tokens: running.known, output_max, output_expected: Some(output_max) };
        let line = self.returning.of_mut(running.lane);
        let at = line.partition_point(|(number, _)| *number < running.number);
        line.insert(at, (running.number, job));
    }

    /// So many tokens of a sequence were computed.
    pub fn computed(&mut self, key: Key, tokens: usize) {
        if let Some(running) = self.find(key) {
            running.done = (running.done + tokens).min(running.known);
        }
    }

    /// A sequence has a token more, which the next step computes.
    pub fn picked(&mut self, key: Key) {
        if let Some(running) = self.find(key) {
            running.known += 1;
        }
    }

    /// A sequence ended, with so many tokens of output.
    pub fn ended(&mut self, key: Key, output: usize) {
        if self.remove(key).is_some() {
            self.expected.ended(output);
        }
    }

    /// A job is not to run any further.
    pub fn drop(&mut self, key: Key) {
        self.remove(key);
    }

    fn remove(&mut self, key: Key) -> Option<Running> {
        let at = self.running.iter().position(|running| running.key == key)?;
        Some(self.running.remove(at))
    }
}

#[cfg(test)]
mod tests;
