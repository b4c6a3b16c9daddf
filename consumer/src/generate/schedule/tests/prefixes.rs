//! Jobs that share prefixes on a device whose cache is counted by hand: what is computed in the order of the backlog,
//! and in the order of arrival.

use std::collections::{BTreeMap, VecDeque};

use proptest::{collection, prelude::*};

use super::super::*;
use crate::generate::prefix::Prefix;

const PAGE: usize = 4;

/// A job of a test: its prompt, and the output that it will have.
#[derive(Debug, Clone)]
struct Job {
    prefix: Prefix,
    prompt: usize,
    output: usize,
}

/// A sequence that the device holds.
#[derive(Debug)]
struct Open {
    done: usize,
    /// Full pages of its prompt that it holds.
    shared: Vec<u64>,
}

/// A device with a cache of prefixes, which forgets the page that was let go the longest time ago.
struct Device {
    bounds: Bounds,
    open: BTreeMap<Key, Open>,
    /// Pages that are known by their hash: sequences that hold each, and when it was let go.
    known: BTreeMap<u64, (usize, u64)>,
    now: u64,
    prompt_tokens: usize,
}

impl Device {
    fn held(&self) -> usize {
        let own = |open: &Open| self.bounds.pages_of(open.done) - open.shared.len();
        let known = self.known.values().filter(|(holders, _)| *holders > 0).count();
        known + self.open.values().map(own).sum::<usize>()
    }

    fn left(&self) -> usize {
        self.bounds.pages - self.held()
    }

    fn open(&mut self, key: Key, job: &Job) -> usize {
        let is_known = |page: &&u64| self.known.contains_key(page);
        let shared: Vec<u64> = job.prefix.pages().iter().take_while(is_known).copied().collect();
        for page in &shared {
            self.known.get_mut(page).unwrap().0 += 1;
        }
        let done = shared.len() * PAGE;
        self.open.insert(key, Open { done, shared });
        done
    }

    fn compute(&mut self, key: Key, tokens: usize, job: &Job) {
        let open = self.open.get_mut(&key).unwrap();
        self.prompt_tokens += (open.done + tokens).min(job.prompt).saturating_sub(open.done);
        open.done += tokens;
        while let Some(page) = job.prefix.pages().get(open.shared.len())
            && open.done >= (open.shared.len() + 1) * PAGE
        {
            self.known.entry(*page).or_default().0 += 1;
            open.shared.push(*page);
        }
        while self.held() + self.cached().count() > self.bounds.pages {
            let (_, oldest) = self.cached().min().expect("more pages are held than there are");
            self.known.remove(&oldest);
        }
    }

    fn cached(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let cached = self.known.iter().filter(|(_, (holders, _))| *holders == 0);
        cached.map(|(page, (_, since))| (*since, *page))
    }

    fn close(&mut self, key: Key) {
        for page in self.open.remove(&key).unwrap().shared.iter().rev() {
            self.now += 1;
            let known = self.known.get_mut(page).unwrap();
            *known = (known.0 - 1, self.now);
        }
    }
}

/// The figures of a run.
#[derive(Debug)]
struct Ran {
    prompt_tokens: usize,
    steps: usize,
}

/// Runs all jobs, of which the worker holds so many at once.
fn run(bounds: Bounds, passed_max: u32, held_max: usize, jobs: &[Job]) -> Ran {
    let backlog = Backlog::new(passed_max);
    let mut schedule = Schedule::with_backlog(bounds, &Weights::default(), &backlog);
    let mut device =
        Device { bounds, open: BTreeMap::new(), known: BTreeMap::new(), now: 0, prompt_tokens: 0 };
    let mut coming: VecDeque<(usize, &Job)> = jobs.iter().enumerate().collect();
    let mut output: BTreeMap<Key, usize> = BTreeMap::new();
    let mut ended = 0;
    let now = Instant::now();
    let alone: usize = jobs.iter().map(|job| job.prompt + job.output).sum();
    for steps in 0..20 * alone {
        while coming.len() + held_max > jobs.len() - ended
            && let Some((key, job)) = coming.pop_front()
        {
            let waiting = Waiting {
                key: key as Key,
                tokens: job.prompt,
                output_max: job.output,
                output_expected: None,
                prefix: job.prefix.clone(),
                expires: None,
            };
            schedule.push(Lane::Batch, None, waiting, now);
        }
        while let Some(Admission { key, give_way }) = schedule.admit(now) {
            assert!(give_way.is_empty(), "none is interactive");
            schedule.entered(key);
        }
        let rows = loop {
            match schedule.next(device.left()) {
                Next::Step(rows) => break rows,
                Next::Open(key) => schedule.opened(key, device.open(key, &jobs[key as usize])),
                Next::GiveWay(key) => {
                    schedule.give_way(key);
                    device.close(key);
                }
            }
        };
        assert!(!rows.is_empty(), "the device stands still");
        assert!(rows.iter().map(|(_, tokens)| tokens).sum::<usize>() <= bounds.step_tokens);
        for (key, tokens) in rows {
            let job = &jobs[key as usize];
            device.compute(key, tokens, job);
            schedule.computed(key, tokens);
            assert!(device.held() <= bounds.pages, "more pages than there are");
            let picked = output.entry(key).or_default();
            if device.open[&key].done == job.prompt + *picked {
                *picked += 1;
                if *picked == job.output {
                    schedule.ended(key, job.output);
                    device.close(key);
                    ended += 1;
                } else {
                    schedule.picked(key);
                }
            }
        }
        if ended == jobs.len() {
            assert!(schedule.is_empty() && device.held() == 0);
            assert_eq!(schedule.work(Lane::Batch), Work::default());
            return Ran { prompt_tokens: device.prompt_tokens, steps };
        }
    }
    panic!("{ended} of {} jobs ended", jobs.len());
}

fn job(template: u32, template_tokens: usize, own: u32, own_tokens: usize, output: usize) -> Job {
    let tokens = [vec![template; template_tokens], vec![1_000 + own; own_tokens]].concat();
    Job { prefix: Prefix::of(&tokens, 0, PAGE), prompt: tokens.len(), output }
}

/// Steele and Vigna's splitmix64: numbers that are drawn the same in every run.
fn drawn(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn jobs_of_eight_templates_in_any_order_compute_at_most_half_of_the_prompts_that_arrival_order_does()
 {
    // A template has 32 pages, and those of half of them are there beside what is each job's own.
    let jobs: Vec<Job> = (0..1_000)
        .map(|n| job(drawn(n) as u32 % 8, 128, n as u32, 5, 4 + drawn(2_000 + n) as usize % 8))
        .collect();
    let bounds = Bounds { step_tokens: 64, sequences_max: 16, page_tokens: PAGE, pages: 200 };
    let ordered = run(bounds, PASSED_MAX, 256, &jobs);
    let arrival = run(bounds, 0, 256, &jobs);
    let all: usize = jobs.iter().map(|job| job.prompt).sum();
    eprintln!("{all} tokens of prompts; in order {ordered:?}, in order of arrival {arrival:?}");
    assert!(2 * ordered.prompt_tokens <= arrival.prompt_tokens, "{ordered:?}, {arrival:?}");
    assert!(2 * ordered.steps <= arrival.steps, "{ordered:?}, {arrival:?}");
}

#[test]
fn what_many_begin_with_is_computed_once_although_they_come_at_once() {
    let jobs: Vec<Job> = (0..16).map(|n| job(1, 128, n, 4, 10)).collect();
    let bounds = Bounds { step_tokens: 64, sequences_max: 16, page_tokens: PAGE, pages: 200 };
    let ran = run(bounds, PASSED_MAX, 256, &jobs);
    assert_eq!(ran.prompt_tokens, 128 + 16 * 4);
    assert!(ran.steps <= 2 + 2 + 10, "side by side: {ran:?}");
}

proptest! {
    #[test]
    fn all_jobs_end_within_pages_and_budget_whatever_they_share(
        all in collection::vec((0_u32..3, 0_usize..30, 0_u32..3, 1_usize..20, 1_usize..20), 1..40),
        pages in 18_usize..60,
        step_tokens in 1_usize..30,
        sequences_max in 1_usize..12,
        passed_max in 0_u32..20,
        held_max in 1_usize..40,
    ) {
        let jobs: Vec<Job> = all
            .into_iter()
            .map(|(template, tokens, own, own_tokens, output)| job(template, tokens, own, own_tokens, output))
            .collect();
        let step_tokens = step_tokens.max(sequences_max);
        run(Bounds { step_tokens, sequences_max, page_tokens: PAGE, pages }, passed_max, held_max, &jobs);
    }
}
