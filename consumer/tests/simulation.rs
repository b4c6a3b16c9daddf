//! The worker's logic on paused time: thousands of seeded schedules of crashes, lost links, lost
//! answers and killer jobs, in seconds.
//!
//! Everything above the seams is real: the stages, batching, crash attribution, retries, settling. Below
//! them are a broker, a store, an engine and an executor that do what the seed says. A failure names its seed, and
//! `FOREBAY_SIMULATION_SEED=n cargo test -p forebay-consumer --test simulation` runs it again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod simulation {
    pub mod broker;
    pub mod executor;
    pub mod life;
    pub mod model;
    pub mod store;
    pub mod world;
}

use simulation::world::{Report, World};

/// Schedules in a plain run; `FOREBAY_SIMULATION_RUNS` asks for more.
const RUNS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    match runtime.block_on(World::run(seed)) {
        Ok(report) => report,
        Err(problem) => panic!("FOREBAY_SIMULATION_SEED={seed}: {problem}"),
    }
}

#[test]
fn every_job_of_every_schedule_has_the_one_end_that_it_should() {
    let seeds = match number("FOREBAY_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOREBAY_SIMULATION_RUNS").unwrap_or(RUNS),
    };
    let many = seeds.end - seeds.start > 100;
    let mut all = Report::default();
    for seed in seeds {
        let report = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| panic!("FOREBAY_SIMULATION_SEED={seed} failed; see above"));
        all.jobs += report.jobs;
        all.workers += report.workers;
        all.faults += report.faults;
        all.killed_by_jobs += report.killed_by_jobs;
    }
    assert!(!many || (all.killed_by_jobs > 100 && all.faults > 100), "nothing happened: {all:?}");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [1, 2, 3] {
        assert_eq!(format!("{:?}", run(seed)), format!("{:?}", run(seed)));
    }
}
