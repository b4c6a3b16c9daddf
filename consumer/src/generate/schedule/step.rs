//! The next step: which sequences have a row in it, and how many of their tokens.

use forebay_schemas::Lane;

use super::{Next, Schedule};
use crate::{
    generate::slots::{Phase, Running},
    lanes::{Lanes, URGENT_STREAK_MAX},
};

impl Schedule {
    /// A step, or what has to be done before, where so many pages can be taken.
    pub fn next(&mut self, pages_left: usize) -> Next {
        let mut left = self.bounds.step_tokens;
        let mut pages = pages_left;
        let mut rows = Vec::new();
        let is_row = |running: &&Running| running.is_open() && running.left() == 1;
        for running in self.running.iter().filter(is_row) {
            let needed = self.more_pages(running, 1);
            if needed > pages {
                return self.youngest();
            }
            pages -= needed;
            left = left.saturating_sub(1);
            rows.push((running.key, 1));
        }
        let prefills = self.prefills();
        let mut computed = Lanes::<bool>::default();
        let mut is_short = false;
        for running in &prefills {
            let is_ready = running.phase == Phase::Ready;
            if left == 0 {
                break;
            }
            if is_ready && self.waits_for_prefix(running) {
                continue;
            }
            let tokens = running.left().min(left).min(self.fitting(running, pages));
            if tokens == 0 {
                is_short = true;
                break;
            }
            if is_ready {
                return Next::Open(running.key);
            }
            pages -= self.more_pages(running, tokens);
            left -= tokens;
            rows.push((running.key, tokens));
            *computed.of_mut(running.lane) = true;
        }
        if rows.is_empty() && is_short {
            return self.youngest();
        }
        let batch_waits = prefills.iter().any(|it| it.lane == Lane::Batch) && !computed.batch;
        let in_a_row = computed.interactive && batch_waits;
        self.prefill_streak = if in_a_row { self.prefill_streak + 1 } else { 0 };
        Next::Step(rows)
    }

    /// Those that have more than a token to compute, or have yet to be opened, in their order.
    fn prefills(&self) -> Vec<&Running> {
        let batch_first = self.prefill_streak >= URGENT_STREAK_MAX;
        let is_prefill = |it: &&Running| match it.phase {
            Phase::Entering => false,
            Phase::Ready => true,
            Phase::Open => it.is_prefill(),
        };
        let mut prefills: Vec<&Running> = self.running.iter().filter(is_prefill).collect();
        prefills.sort_by_key(|it| ((it.lane == Lane::Batch) != batch_first, it.number));
        prefills
    }

    /// Whether a sequence waits because one that goes before it computes more pages of its prefix than there are now.
    /// Each waits for one that came before it and does not wait for it in turn, so the first of all waits for none.
    fn waits_for_prefix(&self, job: &Running) -> bool {
        let mut there = 0;
        let mut coming = 0;
        for other in
            self.running.iter().filter(|it| it.phase != Phase::Entering && it.key != job.key)
        {
            let shared = job.prefix.shared(&other.prefix);
            let computed = if other.is_open() { other.done / self.bounds.page_tokens } else { 0 };
            there = there.max(shared.min(computed));
            let is_before = other.number < job.number
                && (other.lane == job.lane || other.lane == Lane::Interactive);
            if is_before && computed < shared {
                coming = coming.max(shared);
            }
        }
        coming > there
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
        for running in self.running.iter().filter(|running| running.is_open()) {
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
}
