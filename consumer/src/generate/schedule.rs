//! The schedule: which sequences the device holds, and which of their tokens the next step computes. It decides and
//! does nothing itself, so properties of it can be tested.
//!
//! - Every step has a token of each sequence that is past its prompt, and fills up with chunks of prompts.
//! - A sequence is admitted if pages for its prompt and for as much output as is expected can be set aside; pages of a
//!   prefix that it shares with a running one are set aside already. Where that was too little, the youngest sequence
//!   gives way: its tokens are kept, and it goes on before others of its lane.
//! - A sequence is opened when it is about to be computed, and not while another computes what both begin with: then it
//!   finds that in the cache.
//! - Interactive jobs go before those of the batch lane, and may take the slot of running ones; a ninth is the batch
//!   lane's, of turns as of slots. Among tenants of a lane the order is fair, and among the jobs of one those that
//!   begin alike follow each other (`backlog`).

mod step;

use std::{collections::VecDeque, time::Duration};

use forebay_schemas::Lane;
use tokio::time::Instant;

pub use crate::generate::slots::{Bounds, Key, Waiting};
use crate::{
    fair::{Fair, Line, Served, Weights},
    generate::{
        backlog::{Backlog, PASSED_MAX, Queued},
        expect::Expected,
        slots::{Phase, PrefixPages, Running, Slots, output_expected},
    },
    lanes::{Lanes, URGENT_STREAK_MAX},
};

/// The weight of a step in the mean of how long one takes.
const STEP_WEIGHT: f64 = 0.05;

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
    /// It opens this sequence, and the schedule is asked again.
    Open(Key),
    /// Pages are short: this sequence gives way, and the schedule is asked again.
    GiveWay(Key),
}

/// Jobs, and their tokens: those that they begin with, and those of output that are expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Jobs.
    pub jobs: usize,
    /// Tokens of all of them.
    pub tokens: usize,
}

/// The schedule.
#[derive(Debug)]
pub struct Schedule {
    bounds: Bounds,
    waiting: Lanes<Fair<Queued, Backlog>>,
    /// The work of those that wait and have not run yet.
    work: Lanes<Work>,
    /// Those that gave way, the oldest first, with their numbers: they go before those that wait.
    returning: Lanes<VecDeque<(u64, Waiting)>>,
    /// In the order of their numbers.
    running: Vec<Running>,
    prefixes: PrefixPages,
    numbers: u64,
    /// Interactive admissions in a row while the batch lane waited.
    admitted_streak: u32,
    /// Steps in a row in which only interactive prompts were computed while one of the batch lane waited.
    prefill_streak: u32,
    expected: Expected,
    /// Seconds that a step takes; 0 before the first.
    step_s: f64,
}

impl Work {
    fn add(&mut self, queued: &Queued) {
        self.jobs += 1;
        self.tokens += queued.job.tokens + queued.output;
    }

    fn remove(&mut self, queued: &Queued) {
        self.jobs -= 1;
        self.tokens -= queued.job.tokens + queued.output;
    }
}

impl Schedule {
    /// A schedule without jobs.
    pub fn new(bounds: Bounds, weights: &Weights) -> Self {
        Self::with_backlog(bounds, weights, &Backlog::new(PASSED_MAX))
    }

    /// A schedule whose jobs of each tenant and lane wait in a line like this one.
    pub fn with_backlog(bounds: Bounds, weights: &Weights, empty: &Backlog) -> Self {
        Self {
            bounds,
            waiting: Lanes::each(|_| Fair::with_lines(weights.clone(), empty.another())),
            work: Lanes::default(),
            returning: Lanes::default(),
            running: Vec::new(),
            prefixes: PrefixPages::default(),
            numbers: 0,
            admitted_streak: 0,
            prefill_streak: 0,
            expected: Expected::default(),
            step_s: 0.0,
        }
    }

    /// Its bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// A job comes.
    pub fn push(&mut self, lane: Lane, tenant: Option<&str>, job: Waiting, now: Instant) {
        let output = output_expected(&job, &self.expected);
        let due = job.expires.map(|expires| self.due(now, expires, output));
        let queued = Queued { job, output, due };
        self.work.of_mut(lane).add(&queued);
        self.waiting.of_mut(lane).push(tenant, queued, now);
    }

    /// When a job has to be begun at the latest: in half of the time that it has, or so long before its end as twice
    /// its output takes.
    fn due(&self, now: Instant, expires: Instant, output: usize) -> Instant {
        let left = expires.saturating_duration_since(now);
        let output_s = self.step_s * output as f64;
        let takes = Duration::try_from_secs_f64(2.0 * output_s).unwrap_or(Duration::MAX);
        now + left.saturating_sub(takes).min(left / 2)
    }

    /// Whether any job waits or runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && !self.waits(Lane::Interactive) && !self.waits(Lane::Batch)
    }

    /// How many sequences run, or are about to.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a sequence runs, or is about to.
    pub fn runs(&self, key: Key) -> bool {
        self.running.iter().any(|running| running.key == key)
    }

    /// The work of a lane that waits and has not run yet.
    pub fn work(&self, lane: Lane) -> Work {
        *self.work.of(lane)
    }

    /// The work of the sequences that run.
    pub fn running_work(&self) -> Work {
        let tokens = self.running.iter().map(|running| running.reserved.max(running.known)).sum();
        Work { jobs: self.running.len(), tokens }
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
            prefixes: &self.prefixes,
            expected: &self.expected,
        };
        if let Some((_, job)) = self.returning.of(lane).front() {
            let give_way = slots.for_job(lane, job)?;
            let (number, job) = self.returning.of_mut(lane).pop_front()?;
            return Some(self.take(lane, number, job, give_way));
        }
        let mut taken = None;
        self.waiting.of_mut(lane).turn(now, |queued| {
            let give_way = slots.for_job(lane, &queued.job)?;
            taken = Some((queued.clone(), give_way));
            Some(Served { cost: slots.tokens(&queued.job), is_done: true })
        });
        let (queued, give_way) = taken?;
        self.work.of_mut(lane).remove(&queued);
        self.numbers += 1;
        Some(self.take(lane, self.numbers, queued.job, give_way))
    }

    fn take(&mut self, lane: Lane, number: u64, job: Waiting, give_way: Vec<Key>) -> Admission {
        for key in &give_way {
            self.give_way(*key);
        }
        let running = Running {
            key: job.key,
            lane,
            number,
            phase: Phase::Entering,
            done: 0,
            known: job.tokens,
            known_max: job.tokens + job.output_max,
            reserved: job.tokens + output_expected(&job, &self.expected),
            prefix: job.prefix,
            expires: job.expires,
        };
        self.prefixes.add(&running.prefix);
        let at = self.running.partition_point(|other| other.number < number);
        self.running.insert(at, running);
        Admission { key: job.key, give_way }
    }

    /// The sequence is in the journal: the device may have it.
    pub fn entered(&mut self, key: Key) {
        if let Some(running) = self.find(key) {
            running.phase = Phase::Ready;
        }
    }

    /// The device has the sequence, and `cached` of its tokens need not be computed.
    pub fn opened(&mut self, key: Key, cached: usize) {
        if let Some(running) = self.find(key) {
            running.phase = Phase::Open;
            running.done = cached.min(running.known.saturating_sub(1));
        }
    }

    fn find(&mut self, key: Key) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.key == key)
    }

    /// A sequence gives way: it waits again, before others of its lane.
    pub fn give_way(&mut self, key: Key) {
        let Some(running) = self.remove(key) else { return };
        let output_max = running.known_max - running.known;
        let job = Waiting {
            key,
            tokens: running.known,
            output_max,
            // What was expected of it was too little.
            output_expected: Some(output_max),
            prefix: running.prefix,
            expires: running.expires,
        };
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

    /// A step took so long.
    pub fn stepped(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        let weight = if self.step_s > 0.0 { STEP_WEIGHT } else { 1.0 };
        self.step_s += weight * (took_s - self.step_s);
    }

    /// A sequence has a token more, which the next step computes.
    pub fn picked(&mut self, key: Key) {
        if let Some(running) = self.find(key) {
            running.known += 1;
        }
    }

    /// A sequence ended, with so many tokens of output.
    pub fn ended(&mut self, key: Key, output: usize) {
        if let Some(running) = self.remove(key) {
            self.expected.ended(&running.prefix, output);
        }
    }

    /// A job is not to run any further, or not at all.
    pub fn drop(&mut self, lane: Lane, tenant: Option<&str>, key: Key) {
        if self.remove(key).is_some() {
            return;
        }
        let line = self.returning.of_mut(lane);
        if let Some(at) = line.iter().position(|(_, job)| job.key == key) {
            line.remove(at);
        } else if let Some(queued) = self.waiting.of_mut(lane).remove(tenant, |it| it.remove(key)) {
            self.work.of_mut(lane).remove(&queued);
        }
    }

    /// Nothing runs any further.
    pub fn stop(&mut self) {
        self.running.clear();
        self.prefixes = PrefixPages::default();
    }

    fn remove(&mut self, key: Key) -> Option<Running> {
        let at = self.running.iter().position(|running| running.key == key)?;
        let running = self.running.remove(at);
        self.prefixes.remove(&running.prefix);
        Some(running)
    }
}

#[cfg(test)]
mod tests;
