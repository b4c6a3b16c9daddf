//! The jobs of one tenant and lane that wait for the device, and which of them is next: those that begin alike follow
//! each other, so that what they share is computed once and stays in pages while they need it.
//!
//! The prefixes of all that wait form a tree of pages. The next job is the one that shares most with the one before:
//! so each part of the tree is finished before another is begun. Where several parts are as near, the one with the most
//! jobs is next, and of jobs between which no page decides, that of which the longest output is expected: begun last,
//! it would run alone at the end.
//!
//! Two rules go before that. A job is passed over by so many later ones at most, then it is next. And one that must be
//! begun by now to end in time is next.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use tokio::time::Instant;

use crate::{
    fair::Line,
    generate::{prefix::Prefix, slots::Waiting},
};

/// Later jobs of its tenant and lane that a job is passed over by, at most: about twice as many as a worker holds, in
/// which all parts of its tree come to their turn as a rule.
pub const PASSED_MAX: u32 = 512;

/// A job that waits, with what is expected of it.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The job.
    pub job: Waiting,
    /// Tokens of output that are expected, from when it came.
    pub output: usize,
    /// When it has to be begun.
    pub due: Option<Instant>,
}

/// The jobs of one tenant and lane.
#[derive(Debug, Clone)]
pub struct Backlog {
    passed_max: u32,
    /// By their numbers, which are in the order in which they came.
    jobs: BTreeMap<u64, Entry>,
    came: u64,
    /// Jobs that wait, by each page of their prefixes: the tree.
    with_page: HashMap<u64, usize>,
    /// The prefix of the last job that was begun.
    last: Prefix,
    /// The number of the job that was chosen.
    chosen: Option<u64>,
}

#[derive(Debug, Clone)]
struct Entry {
    queued: Queued,
    since: Instant,
    /// Jobs that came later and were begun.
    passed: u32,
}

impl Backlog {
    /// No job waits. A job is passed over by so many later ones at most; with none they go in the order in which they
    /// come.
    pub fn new(passed_max: u32) -> Self {
        Self {
            passed_max,
            jobs: BTreeMap::new(),
            came: 0,
            with_page: HashMap::new(),
            last: Prefix::default(),
            chosen: None,
        }
    }

    /// Takes a job out: it is not to run here.
    pub fn remove(&mut self, key: u64) -> Option<Queued> {
        let (&number, _) = self.jobs.iter().find(|(_, entry)| entry.queued.job.key == key)?;
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<Queued> {
        let entry = self.jobs.remove(&number)?;
        for page in entry.queued.job.prefix.pages() {
            if let Some(jobs) = self.with_page.get_mut(page) {
                *jobs -= 1;
                if *jobs == 0 {
                    self.with_page.remove(page);
                }
            }
        }
        Some(entry.queued)
    }

    fn next(&self, now: Instant, is_overdue: bool) -> Option<u64> {
        let (&oldest, entry) = self.jobs.first_key_value()?;
        // None was passed over by more than the oldest.
        if is_overdue || entry.passed >= self.passed_max {
            return Some(oldest);
        }
        let due = self.jobs.iter().filter_map(|(number, entry)| {
            entry.queued.due.filter(|due| *due <= now).map(|due| (due, *number))
        });
        due.min().map(|(_, number)| number).or_else(|| self.nearest())
    }

    /// The job that shares most with the last one, by the way of the most jobs.
    fn nearest(&self) -> Option<u64> {
        let shared = |entry: &Entry| entry.queued.job.prefix.shared(&self.last);
        let nearest = self.jobs.values().map(shared).max()?;
        let mut near: Vec<(&u64, &Entry)> =
            self.jobs.iter().filter(|(_, entry)| shared(entry) == nearest).collect();
        let mut depth = nearest;
        loop {
            let page = |entry: &Entry| entry.queued.job.prefix.pages().get(depth).copied();
            let jobs = |page: u64| self.with_page.get(&page).copied().unwrap_or_default();
            // Of parts with as many jobs, the one whose first came first.
            let pages = near.iter().rev().filter_map(|(_, entry)| page(entry));
            let Some(heaviest) = pages.max_by_key(|page| jobs(*page)) else { break };
            if jobs(heaviest) < 2 {
                break;
            }
            near.retain(|(_, entry)| page(entry) == Some(heaviest));
            // To where they part.
            let Some((_, first)) = near.first() else { break };
            let with = |entry: &Entry| entry.queued.job.prefix.shared(&first.queued.job.prefix);
            depth = near.iter().map(|(_, entry)| with(entry)).min().unwrap_or(depth).max(depth + 1);
        }
        let longest =
            near.iter().max_by_key(|(number, entry)| (entry.queued.output, Reverse(*number)));
        longest.map(|(number, _)| **number)
    }
}

impl Line<Queued> for Backlog {
    fn another(&self) -> Self {
        Self::new(self.passed_max)
    }

    fn push(&mut self, queued: Queued, now: Instant) {
        for page in queued.job.prefix.pages() {
            *self.with_page.entry(*page).or_default() += 1;
        }
        self.came += 1;
        self.jobs.insert(self.came, Entry { queued, since: now, passed: 0 });
    }

    fn oldest(&self) -> Option<Instant> {
        self.jobs.first_key_value().map(|(_, entry)| entry.since)
    }

    fn choose(&mut self, now: Instant, is_overdue: bool) -> Option<&mut Queued> {
        self.chosen = self.next(now, is_overdue);
        self.jobs.get_mut(&self.chosen?).map(|entry| &mut entry.queued)
    }

    fn done(&mut self) {
        let Some(number) = self.chosen.take() else { return };
        let Some(queued) = self.take(number) else { return };
        for (_, entry) in self.jobs.range_mut(..number) {
            entry.passed += 1;
        }
        // One that nothing begins like, and that went out of turn, leaves the others where they were.
        let first = queued.job.prefix.pages().first();
        if first.is_some_and(|page| self.with_page.contains_key(page)) {
            self.last = queued.job.prefix;
        }
    }
}

#[cfg(test)]
mod tests;
