//! Properties of the schedule, against a device that is counted by hand.

mod prefixes;

use std::collections::BTreeMap;

use proptest::{collection, prelude::*};

use super::*;
use crate::generate::prefix::Prefix;

/// A job of a test: its lane, its prompt, and the output that it will have of the most that it may.
#[derive(Debug, Clone, Copy)]
struct Job {
    lane: Lane,
    prompt: usize,
    output: usize,
    output_max: usize,
    arrives: usize,
}

/// A device of so many pages, which shares none.
struct World {
    schedule: Schedule,
    jobs: Vec<Job>,
    /// Computed tokens of each open sequence.
    open: BTreeMap<Key, usize>,
    /// Output of each job so far.
    output: BTreeMap<Key, usize>,
    ended_at: BTreeMap<Key, usize>,
    admitted: Vec<Key>,
    /// Admitted ones that the journal has from the next step on, as it is where the store takes a while.
    entering: Vec<Key>,
    journal_is_slow: bool,
}

impl World {
    fn new(bounds: Bounds, jobs: Vec<Job>) -> Self {
        let schedule = Schedule::new(bounds, &Weights::default());
        Self {
            schedule,
            jobs,
            open: BTreeMap::new(),
            output: BTreeMap::new(),
            ended_at: BTreeMap::new(),
            admitted: Vec::new(),
            entering: Vec::new(),
            journal_is_slow: false,
        }
    }

    fn pages(&self) -> usize {
        let pages = |tokens: &usize| self.schedule.bounds.pages_of(*tokens);
        self.open.values().map(pages).sum()
    }

    /// One step, with all that comes before it.
    fn step(&mut self, at: usize) {
        let now = Instant::now();
        for (key, job) in self.jobs.iter().enumerate().filter(|(_, job)| job.arrives == at) {
            let waiting = Waiting {
                key: key as Key,
                tokens: job.prompt,
                output_max: job.output_max,
                output_expected: None,
                prefix: Prefix::default(),
                expires: None,
            };
            self.schedule.push(job.lane, None, waiting, now);
        }
        for key in std::mem::take(&mut self.entering) {
            self.schedule.entered(key);
        }
        while let Some(Admission { key, give_way }) = self.schedule.admit(now) {
            for victim in give_way {
                self.open.remove(&victim);
                assert_eq!(self.jobs[victim as usize].lane, Lane::Batch);
                assert_eq!(self.jobs[key as usize].lane, Lane::Interactive);
            }
            self.admitted.push(key);
            if self.journal_is_slow {
                self.entering.push(key);
            } else {
                self.schedule.entered(key);
            }
        }
        let rows = loop {
            let left = self.schedule.bounds.pages - self.pages();
            match self.schedule.next(left) {
                Next::Step(rows) => break rows,
                Next::Open(key) => {
                    assert!(self.open.insert(key, 0).is_none(), "{key} is open");
                    self.schedule.opened(key, 0);
                }
                Next::GiveWay(victim) => {
                    self.schedule.give_way(victim);
                    assert!(self.open.remove(&victim).is_some());
                }
            }
        };
        let tokens: usize = rows.iter().map(|(_, tokens)| tokens).sum();
        assert!(tokens <= self.schedule.bounds.step_tokens, "{tokens} tokens in a step");
        assert!(rows.is_empty() == self.open.is_empty(), "the device stands still");
        self.compute(&rows, at);
    }

    fn compute(&mut self, rows: &[(Key, usize)], at: usize) {
        for &(key, tokens) in rows {
            assert!(tokens > 0);
            *self.open.get_mut(&key).expect("an open sequence") += tokens;
            self.schedule.computed(key, tokens);
        }
        assert!(self.pages() <= self.schedule.bounds.pages, "more pages than there are");
        for &(key, _) in rows {
            let job = self.jobs[key as usize];
            let output = self.output.entry(key).or_default();
            let known = job.prompt + *output;
            if self.open[&key] < known {
                continue;
            }
            assert_eq!(self.open[&key], known);
            *output += 1;
            if *output == job.output {
                self.schedule.ended(key, job.output);
                self.open.remove(&key);
                assert!(self.ended_at.insert(key, at).is_none(), "{key} ended twice");
            } else {
                self.schedule.picked(key);
            }
        }
    }

    /// Steps until all jobs ended, which takes no more than `steps`.
    fn run(&mut self, steps: usize) {
        for at in 0..steps {
            self.step(at);
            if self.ended_at.len() == self.jobs.len() {
                assert!(self.schedule.is_empty() && self.open.is_empty());
                return;
            }
        }
        panic!("{} of {} jobs ended in {steps} steps", self.ended_at.len(), self.jobs.len());
    }
}

const PAGE: usize = 4;

fn bounds(step_tokens: usize, sequences_max: usize, pages: usize) -> Bounds {
    Bounds { step_tokens, sequences_max, page_tokens: PAGE, pages }
}

/// Jobs that fit a device of so many pages, if need be alone.
fn jobs(pages: usize) -> impl Strategy<Value = Vec<Job>> {
    let most = pages * PAGE;
    let job = (any::<bool>(), 1..most, 1..40_usize, 0..60_usize, 0..50_usize).prop_map(
        move |(is_interactive, prompt, output, more, arrives)| {
            let output_max = (output + more).min(most - prompt).max(1);
            Job {
                lane: if is_interactive { Lane::Interactive } else { Lane::Batch },
                prompt: prompt.min(most - 1),
                output: output.min(output_max),
                output_max,
                arrives,
            }
        },
    );
    collection::vec(job, 1..40)
}

proptest! {
    #[test]
    fn every_job_ends_within_pages_and_budget_whatever_comes(
        (pages, jobs) in (4_usize..40).prop_flat_map(|pages| (Just(pages), jobs(pages))),
        step_tokens in 1_usize..30,
        sequences_max in 1_usize..12,
    ) {
        // One after the other they would take so many steps; those that give way are computed again.
        let alone: usize = jobs.iter().map(|job| job.prompt + job.output).sum();
        let bounds = bounds(step_tokens.max(sequences_max), sequences_max, pages);
        World::new(bounds, jobs).run(100 + 20 * alone);
    }

    #[test]
    fn jobs_of_one_lane_and_tenant_are_admitted_in_the_order_in_which_they_come(
        prompts in collection::vec(1_usize..20, 1..30),
    ) {
        let job = |prompt| Job { lane: Lane::Batch, prompt, output: 3, output_max: 3, arrives: 0 };
        let jobs: Vec<Job> = prompts.into_iter().map(job).collect();
        let mut world = World::new(bounds(16, 4, 40), jobs.clone());
        world.run(10_000);
        let order: Vec<Key> = (0..jobs.len() as Key).collect();
        prop_assert_eq!(world.admitted, order);
    }
}

fn long(lane: Lane, arrives: usize) -> Job {
    Job { lane, prompt: 8, output: 100, output_max: 100, arrives }
}

#[test]
fn a_step_has_a_token_of_each_sequence_past_its_prompt_and_fills_up_with_prompts() {
    let jobs = vec![
        Job { lane: Lane::Batch, prompt: 4, output: 10, output_max: 10, arrives: 0 },
        Job { lane: Lane::Batch, prompt: 30, output: 10, output_max: 10, arrives: 1 },
        Job { lane: Lane::Interactive, prompt: 9, output: 10, output_max: 10, arrives: 1 },
    ];
    let mut world = World::new(bounds(12, 4, 100), jobs);
    world.step(0);
    world.step(1);
    assert_eq!(world.open[&0], 5, "its first token of output");
    assert_eq!(world.open[&2], 9, "the interactive prompt goes first");
    assert_eq!(world.open[&1], 2, "what is left");
}

#[test]
fn an_interactive_job_takes_the_slot_of_the_youngest_of_the_batch_lane_which_goes_on_first() {
    let mut jobs: Vec<Job> = (0..4).map(|_| long(Lane::Batch, 0)).collect();
    jobs.push(long(Lane::Batch, 1));
    jobs.push(Job { output: 5, output_max: 5, ..long(Lane::Interactive, 5) });
    let mut world = World::new(bounds(40, 4, 1_000), jobs);
    (0..5).for_each(|at| world.step(at));
    assert_eq!(world.admitted, [0, 1, 2, 3]);
    world.step(5);
    assert_eq!(world.admitted.last(), Some(&5));
    assert!(!world.open.contains_key(&3), "the youngest gave way");
    (6..12).for_each(|at| world.step(at));
    assert_eq!(world.admitted[4..], [5, 3], "and before those that came later it goes on");
}

proptest! {
    #[test]
    fn an_interactive_job_behind_a_full_batch_lane_has_its_first_token_two_steps_after_its_prompt(
        prompt in 1_usize..1_000,
        batch_prompts in collection::vec(1_usize..1_000, 80..120),
        comes_at in 1_usize..60,
    ) {
        let mut jobs: Vec<Job> = batch_prompts
            .into_iter()
            .map(|prompt| Job { lane: Lane::Batch, prompt, output: 400, output_max: 400, arrives: 0 })
            .collect();
        let key = jobs.len() as Key;
        jobs.push(Job { lane: Lane::Interactive, prompt, output: 1, output_max: 1, arrives: comes_at });
        // As a worker has them: more sequences wait than run, and half of the pages that those of the lane would take.
        let mut world = World::new(bounds(256, 64, 12_000), jobs);
        world.journal_is_slow = true;
        (0..comes_at).for_each(|at| world.step(at));
        prop_assert!(world.schedule.running() > 30, "{} run", world.schedule.running());
        // Each step has a token of every other sequence that is past its prompt.
        let own = prompt.div_ceil(256 - 64);
        (comes_at..=comes_at + 1 + own).for_each(|at| world.step(at));
        prop_assert!(world.ended_at.contains_key(&key), "not within 2 steps and {} of its own", own);
    }
}

#[test]
fn a_job_that_is_dropped_before_it_runs_leaves_nothing() {
    let jobs = vec![long(Lane::Batch, 0); 3];
    let mut world = World::new(bounds(16, 1, 100), jobs);
    world.step(0);
    for key in 0..3 {
        world.schedule.drop(Lane::Batch, None, key);
    }
    assert!(world.schedule.is_empty());
    assert_eq!(world.schedule.work(Lane::Batch), Work::default());
    assert!(world.schedule.admit(Instant::now()).is_none());
}

#[test]
fn however_many_interactive_jobs_come_the_batch_lane_has_every_ninth_turn() {
    let mut jobs: Vec<Job> = (0..300)
        .map(|n| Job { output: 4, output_max: 4, ..long(Lane::Interactive, n / 4) })
        .collect();
    jobs.extend((0..20).map(|_| Job { output: 4, output_max: 4, ..long(Lane::Batch, 0) }));
    let mut world = World::new(bounds(24, 4, 1_000), jobs);
    world.run(10_000);
    let first: Vec<bool> = world.admitted.iter().map(|key| *key >= 300).take(180).collect();
    let batch = first.iter().filter(|is_batch| **is_batch).count();
    assert!((18..=20).contains(&batch), "{batch} of 180");
}

#[test]
fn interactive_prompts_do_not_starve_the_prompt_of_a_batch_job() {
    let mut jobs =
        vec![Job { lane: Lane::Batch, prompt: 64, output: 1, output_max: 1, arrives: 0 }];
    jobs.extend((0..400).map(|n| Job {
        lane: Lane::Interactive,
        prompt: 16,
        output: 1,
        output_max: 1,
        arrives: n,
    }));
    let mut world = World::new(bounds(16, 4, 1_000), jobs);
    world.run(1_000);
    assert!(world.ended_at[&0] <= 9 * (4 + 1), "it ended at {}", world.ended_at[&0]);
}

#[test]
fn a_job_that_needs_all_pages_runs_as_soon_as_the_others_ended() {
    let mut jobs: Vec<Job> =
        (0..3).map(|_| Job { output: 10, output_max: 10, ..long(Lane::Interactive, 0) }).collect();
    jobs.push(Job { lane: Lane::Batch, prompt: 79, output: 1, output_max: 1, arrives: 1 });
    jobs.extend((0..100).map(|n| Job { output: 10, output_max: 10, ..long(Lane::Interactive, n) }));
    let mut world = World::new(bounds(16, 4, 20), jobs);
    world.run(10_000);
    let slot = world.admitted.iter().position(|key| *key == 3).unwrap();
    assert!(slot <= 12, "it was admitted as number {slot}");
}

#[test]
fn pages_are_set_aside_for_what_outputs_were_like() {
    let short = |arrives| Job { lane: Lane::Batch, prompt: 4, output: 4, output_max: 400, arrives };
    let mut world = World::new(bounds(64, 16, 110), (0..40).map(|_| short(0)).collect());
    world.step(0);
    assert_eq!(world.open.len(), 1, "nothing is known yet: as many as it may have");
    (1..33).for_each(|at| world.step(at));
    assert!(world.ended_at.len() >= 8);
    (33..37).for_each(|at| world.step(at));
    assert!(world.open.len() > 8, "{}", world.open.len());
}
