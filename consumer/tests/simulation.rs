//! The worker's logic on paused time: thousands of seeded schedules of crashes, lost links, lost
//! answers and killer jobs, in seconds.
//!
//! Everything above the seams is real: the stages, batching, crash attribution, retries, settling. Below
//! them are a broker, a store, an engine and an executor that do what the seed says. A failure names its seed, and
//! `FOREBAY_SIMULATION_SEED=n cargo test -p forebay-consumer --test simulation` runs it again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod simulation {
    pub mod beside;
    pub mod broker;
    pub mod check;
    pub mod draw;
    pub mod executor;
    pub mod life;
    pub mod model;
    pub mod store;
    pub mod world;
}

use forebay_schemas::{ErrorCode, Lane, Output};
use simulation::{
    beside::{Beside, LONG_WORDS, texts},
    world::{Report, World},
};

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

#[tokio::test(start_paused = true)]
async fn an_interactive_job_waits_for_one_batch_beside_one_job_of_a_quarter_million_tokens() {
    let mut worker = Beside::start();
    let load = worker.submit(Lane::Batch, texts(2_048, LONG_WORDS), true);
    worker.interactive_beside(&load).await;
}

#[tokio::test(start_paused = true)]
async fn an_interactive_job_waits_for_one_batch_beside_a_backlog_of_jobs_of_64_texts() {
    let mut worker = Beside::start();
    let load: Vec<_> = (0..300).map(|_| worker.submit(Lane::Batch, texts(64, 12), true)).collect();
    worker.interactive_beside(load.last().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn an_interactive_job_waits_for_one_batch_beside_many_jobs_of_one_long_text() {
    let mut worker = Beside::start();
    let load: Vec<_> =
        (0..2_000).map(|_| worker.submit(Lane::Batch, texts(1, LONG_WORDS), true)).collect();
    worker.interactive_beside(load.last().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_interactive_jobs_leaves_the_batch_lane_one_turn_of_nine() {
    let mut worker = Beside::start();
    // Each job is a batch of its own, more or less.
    let mut submit = |lane| -> Vec<_> {
        (0..300).map(|_| worker.submit(lane, texts(7, LONG_WORDS), true)).collect()
    };
    let urgent = submit(Lane::Interactive);
    let others = submit(Lane::Batch);
    worker.wait(&urgent[269]).await;
    let done = others.iter().filter(|id| worker.is_done(id)).count();
    assert!((25..=50).contains(&done), "{done} of the batch lane beside 270 interactive ones");
}

#[tokio::test(start_paused = true)]
async fn a_small_job_waits_for_few_batches_beside_a_job_of_another_tenant_of_any_size() {
    let mut worker = Beside::start();
    let load = worker.submit_of("large", texts(2_048, LONG_WORDS));
    worker.tenant_beside(&load).await;
}

#[tokio::test(start_paused = true)]
async fn a_small_job_waits_for_few_batches_beside_all_that_other_tenants_have_in_hand() {
    let mut worker = Beside::start();
    // Three seconds of work, as many as the worker holds beside the small ones: nothing waits in the queue.
    let load: Vec<_> =
        (0..240).map(|n| worker.submit_of(["one", "two", "three"][n % 3], texts(16, 12))).collect();
    worker.tenant_beside(load.last().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn tenants_that_wait_for_one_worker_share_it_by_their_weights_in_tokens() {
    let mut worker = Beside::start_weighted([("heavy", 3)]);
    // The one sends few large jobs and the other many small ones, of as many tokens.
    let light: Vec<_> = (0..20).map(|_| worker.submit_of("light", texts(64, 12))).collect();
    let heavy: Vec<_> = (0..80).map(|_| worker.submit_of("heavy", texts(16, 12))).collect();
    worker.wait(heavy.last().unwrap()).await;
    let done = light.iter().filter(|id| worker.is_done(id)).count();
    assert!(
        (5..=8).contains(&done),
        "{done} of 20 while the heavy tenant had all of its work done"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_of_many_parts_has_all_rows_in_order_and_its_tokens_add_up() {
    let mut worker = Beside::start();
    let words = |n: usize| 1 + n % 100;
    let input = (0..2_048).map(|n| "a ".repeat(words(n))).collect();
    let job = worker.submit(Lane::Batch, input, true);
    worker.wait(&job).await;
    let outcome = worker.outcome(&job);
    let Some(Output::Embed(vectors)) = outcome.output else { panic!("{outcome:?}") };
    for (n, row) in vectors.data.chunks_exact(vectors.dim).enumerate() {
        assert_eq!(row[0] as usize, words(n) + 2, "input {n}");
    }
    let tokens: usize = (0..2_048).map(|n| words(n) + 2).sum();
    assert_eq!(outcome.usage.input_tokens, tokens as u64);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_is_too_long_ends_its_job_once_whichever_part_it_is_in() {
    for index in [0, 3, 777, 2_047] {
        let mut worker = Beside::start();
        let mut input = texts(2_048, 20);
        input[index] = "word ".repeat(LONG_WORDS);
        let job = worker.submit(Lane::Batch, input, false);
        let other = worker.submit(Lane::Batch, texts(1, 20), false);
        worker.wait(&job).await;
        let error = worker.outcome(&job).error.unwrap();
        assert_eq!((error.code, error.index), (ErrorCode::InputTooLong, Some(index)));
        worker.wait(&other).await;
        assert!(worker.outcome(&other).error.is_none());
        worker.all_settled().await;
    }
}
