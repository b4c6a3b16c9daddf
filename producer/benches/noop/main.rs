//! The overhead of a job: jobs of a no-op model through one worker, compared with lapin and Celery.
//!
//! `make bench` runs it against a broker and a Redis of its own. A job is one text of some 450 bytes, its result a
//! vector of 384 values: 600 bytes in, 1.6 KB out. Two things are measured, in turns with their peers:
//!
//! - publishing and computing concurrently, from the first publish to the last record in Redis; the peer is a bare
//!   lapin publisher and a bare lapin consumer on one queue, which decodes nothing and writes no results. Both are
//!   connected and warm: so many messages went through them before;
//! - draining a filled queue, from the first record to the last; the peer is Celery, where it is installed.
//!
//! It prints a table, the processor time that each side took, and, last, one line of JSON.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command that prints tables

mod bare;
mod cpu;
#[path = "../figures/mod.rs"]
mod figures;
mod worker;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::Config;
use futures_util::{StreamExt, stream};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::{
    cpu::{Began, Round},
    figures::row,
    worker::Fixture,
};

const ROUNDS: usize = 5;
const JOBS: usize = 20_000;
/// Messages before those that are measured: enough for a worker that begins with few deliveries to take its fill.
const WARM_UP: usize = 5_000;
/// Celery takes about as long for this many.
const CELERY_TASKS: usize = 4_000;
const TEXT_BYTES: usize = 450;
const PATIENCE: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the checkout")?;
    let like = Config::load(None)?.config.model_dir(&"all-minilm-l6-v2".parse()?)?;
    let fixture = Fixture::create(&like)?;
    let config = fixture.config()?;
    let texts = texts(&root.join("examples/data/descriptions.jsonl"))?;
    let celery = celery(root);
    if celery.is_none() {
        eprintln!(
            "No Python with Celery in FOREBAY_BENCH_PYTHON: draining is not compared with it."
        );
    }
    let mut redis =
        redis::Client::open(config.redis_url.expose())?.get_multiplexed_async_connection().await?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        eprintln!("jobs of a model that computes nothing, round {round} of {ROUNDS}");
        let warm_up = || jobs(&texts, WARM_UP);
        let measured = || jobs(&texts, JOBS);
        figures.both.push(at_once(&fixture, &config, [warm_up()?, measured()?], &mut redis).await?);
        figures.both_bare.push(bare::rate(&config, [warm_up()?, measured()?]).await?);
        figures.drain.push(drained(&fixture, &config, measured()?, &mut redis).await?);
        if let Some(celery) = &celery {
            figures.drain_celery.push(celery.rate(&config)?);
        }
    }
    println!("{}", json!({ "rounds": ROUNDS, "jobs": JOBS, "rows": figures.rows() }));
    Ok(())
}

/// The figures of all rounds.
#[derive(Default)]
struct Figures {
    both: Vec<Round>,
    both_bare: Vec<Round>,
    drain: Vec<Round>,
    drain_celery: Vec<f64>,
}

impl Figures {
    /// Prints a table and returns its rows.
    fn rows(&self) -> Vec<Value> {
        let Self { both, both_bare, drain, drain_celery } = self;
        let of = |rounds: &[Round], figure: fn(&Round) -> f64| -> Vec<f64> {
            rounds.iter().map(figure).collect()
        };
        let rate = |rounds: &[Round]| of(rounds, |round| round.rate);
        let worker_us = |rounds: &[Round]| of(rounds, |round| round.worker_us);
        figures::head();
        let bare_rate = rate(both_bare);
        let mut rows = vec![
            row("lapin, published and consumed at once, messages/s", &bare_rate, None),
            row("client and worker at once, jobs/s", &rate(both), Some(&bare_rate)),
        ];
        let peer = (!drain_celery.is_empty()).then_some(drain_celery.as_slice());
        if let Some(celery) = peer {
            rows.push(row("Celery, two processes, draining, tasks/s", celery, None));
        }
        rows.push(row("one worker, draining, jobs/s", &rate(drain), peer));
        let times = [
            ("lapin at once, both sides, processor us a message", worker_us(both_bare)),
            ("worker at once, processor us a job", worker_us(both)),
            ("client at once, processor us a job", of(both, |round| round.client_us)),
            ("worker draining, processor us a job", worker_us(drain)),
        ];
        rows.extend(times.iter().map(|(name, times)| row(name, times, None)));
        rows
    }
}

/// Real texts, joined and cut to one length. Only their ASCII characters, so that no cut splits a character.
fn texts(file: &Path) -> Result<Vec<String>> {
    let mut all = String::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        all.push_str(line["text"].as_str().context("a line without a text")?);
        all.push(' ');
    }
    all.retain(|character| character.is_ascii());
    let whole = all.len() / TEXT_BYTES * TEXT_BYTES;
    Ok((0..whole).step_by(TEXT_BYTES).map(|at| all[at..at + TEXT_BYTES].to_owned()).collect())
}

fn jobs(texts: &[String], count: usize) -> Result<Vec<Job>> {
    let model: forebay_schemas::ModelId = worker::MODEL.parse()?;
    let texts = texts.iter().cycle().take(count);
    Ok(texts.map(|text| Job::embed(model.clone(), vec![text.clone()])).collect())
}

/// Jobs a second that a client publishes while one worker computes them, up to the last record. Counted is the last of
/// the `passes`, each of which begins when the one before is done.
async fn at_once(
    fixture: &Fixture,
    config: &Config,
    passes: [Vec<Job>; 2],
    redis: &mut MultiplexedConnection,
) -> Result<Round> {
    let mut worker = fixture.start()?;
    worker.ready().await?;
    let client = Client::connect(config)?;
    let mut round = None;
    for jobs in passes {
        let count = jobs.len();
        let before = keys(redis).await?;
        let began = Began::now(Some(&worker))?;
        submit(&client, jobs).await?;
        until(redis, before + count).await?;
        round = Some(began.until_now(Some(&worker), count)?);
    }
    client.close().await;
    worker.stop().await?;
    clear(redis).await?;
    round.context("no passes")
}

/// Jobs a second that one worker drains from a filled queue, from its first record to its last.
async fn drained(
    fixture: &Fixture,
    config: &Config,
    jobs: Vec<Job>,
    redis: &mut MultiplexedConnection,
) -> Result<Round> {
    let client = Client::connect(config)?;
    submit(&client, jobs).await?;
    client.close().await;
    let worker = fixture.start()?;
    // Its own entry in the registry is not a record.
    let first = until(redis, 2).await?;
    let began = Began::now(Some(&worker))?;
    until(redis, JOBS).await?;
    let round = began.until_now(Some(&worker), JOBS - first)?;
    worker.stop().await?;
    clear(redis).await?;
    Ok(round)
}

async fn submit(client: &Client, jobs: Vec<Job>) -> Result<()> {
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs), Lane::Batch));
    while let Some((_, result)) = submitted.next().await {
        result?;
    }
    Ok(())
}

async fn keys(redis: &mut MultiplexedConnection) -> Result<usize> {
    Ok(redis::cmd("DBSIZE").query_async(redis).await?)
}

/// Waits until Redis has `count` keys. Returns how many it has then.
async fn until(redis: &mut MultiplexedConnection, count: usize) -> Result<usize> {
    let began = Instant::now();
    loop {
        let there = keys(redis).await?;
        if there >= count {
            return Ok(there);
        }
        ensure!(began.elapsed() < PATIENCE, "{there} of {count} records after {PATIENCE:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn clear(redis: &mut MultiplexedConnection) -> Result<()> {
    Ok(redis::cmd("FLUSHDB").query_async(redis).await?)
}

/// The Python that has Celery, and the script that measures it.
struct Celery {
    python: PathBuf,
    script: PathBuf,
}

fn celery(root: &Path) -> Option<Celery> {
    let python = PathBuf::from(std::env::var_os("FOREBAY_BENCH_PYTHON")?);
    let there = Command::new(&python)
        .args(["-c", "import celery, redis"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    there.then(|| Celery { python, script: root.join("scripts/peers/celery_noop.py") })
}

impl Celery {
    /// Tasks a second that its worker drains from a filled queue, from the first result to the last.
    fn rate(&self, config: &Config) -> Result<f64> {
        let output = Command::new(&self.python)
            .arg(&self.script)
            .arg(CELERY_TASKS.to_string())
            .env("CELERY_NOOP_BROKER", config.amqp_url.expose())
            .env("CELERY_NOOP_BACKEND", config.redis_url.expose())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{} failed", self.script.display());
        let summary: Value = serde_json::from_slice(&output.stdout)?;
        summary["tasks_per_s"].as_f64().context("no tasks_per_s")
    }
}
