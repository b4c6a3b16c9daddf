//! Runs of a whole fleet that is disturbed by a schedule drawn from a seed, and the check that it kept what
//! it promises.

mod messages;
mod programs;
mod publisher;
mod random;
mod run;
mod schedule;
mod texts;

use std::env;
use std::time::Instant;

use crate::broker::Node;

/// The broker of the runs loses patience with a consumer that holds a delivery for so long; by default it would
/// take half an hour. Longer than any one fault, shorter than some of them together.
const CONSUMER_PATIENCE: &str = "consumer_timeout = 5000\n";

/// The runs to make.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The seed of the first run; the next ones follow it.
    pub seed: u64,
    /// How many runs.
    pub runs: u64,
    /// How many jobs a run publishes.
    pub jobs: usize,
}

impl Plan {
    /// This one, with what `FOREBAY_CHAOS_SEED`, `FOREBAY_CHAOS_RUNS` and `FOREBAY_CHAOS_JOBS` say.
    #[must_use]
    pub fn overridden(self) -> Self {
        let jobs = variable("FOREBAY_CHAOS_JOBS").unwrap_or(self.jobs as u64);
        Self {
            seed: variable("FOREBAY_CHAOS_SEED").unwrap_or(self.seed),
            runs: variable("FOREBAY_CHAOS_RUNS").unwrap_or(self.runs),
            jobs: usize::try_from(jobs).expect("a number of jobs"),
        }
    }

    /// Runs all of it; panics at the first run that breaks a promise.
    pub async fn run(self) {
        let started = Instant::now();
        let mut node = Node::boot_with(CONSUMER_PATIENCE).await;
        let texts = texts::Texts::of(&mut node).await;
        for at in 0..self.runs {
            let seed = self.seed + at;
            let ended = run::run(&mut node, seed, self.jobs, &texts).await;
            let now = at + 1;
            let all = self.runs;
            let minutes = started.elapsed().as_secs_f64() / 60.0;
            eprintln!("chaos: run {now} of {all}, seed {seed}: {ended} ({minutes:.1} min)");
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value}")))
}
