//! How long an interactive job of one text takes beside each kind of batch load, and alone.
//!
//! `make bench` runs it against a stack of its own with one worker. Each round measures without a load and beside each
//! one in turns, since machines drift. It takes about a minute, and prints a table, whether the promise is kept, and,
//! last, one line of JSON.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command that prints tables

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, prelude::*},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::Config;
use forebay_schemas::{JobId, ModelId, State};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

const MODEL: &str = "all-minilm-l6-v2";
const ROUNDS: usize = 3;
/// Interactive jobs beside one load in one round.
const JOBS: usize = 50;
/// On a machine that is too busy for so many, a load ends the round after this time with fewer.
const TIME_MAX: Duration = Duration::from_secs(6);
/// Between two of them, so that they meet a batch at any moment.
const PAUSE: Duration = Duration::from_millis(17);
/// The load is under way after this.
const UNDER_WAY: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(300);
/// The promise beside any load: docs/performance.md.
const P95_MS_MAX: f64 = 100.0;

/// A batch load: so many jobs of so many texts of so many words. Each is some 30,000 tokens, two seconds of work for
/// two cores with bf16. One that ends before the interactive jobs do is renewed.
struct Load {
    name: &'static str,
    jobs: usize,
    texts: usize,
    words: usize,
}

const LOADS: [Load; 4] = [
    Load { name: "alone", jobs: 0, texts: 0, words: 0 },
    Load { name: "beside one job of 175 texts of 180 words", jobs: 1, texts: 175, words: 180 },
    Load { name: "beside a backlog of jobs of 64 texts", jobs: 6, texts: 64, words: 60 },
    Load { name: "beside jobs of one text of 512 words", jobs: 120, texts: 1, words: 512 },
];

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::connect(&Config::load(None)?.config)?;
    let words = words()?;
    // The worker is there, and warm.
    interactive(&client, &words, 20).await?;
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 1..=ROUNDS {
        for load in &LOADS {
            eprintln!("an interactive job {}, round {round} of {ROUNDS}", load.name);
            let figures = beside(&client, &words, load).await?;
            took.entry(load.name).or_default().extend(figures);
        }
    }
    client.close().await;
    report(took)
}

/// Prints the table, whether the promise is kept, and the line of JSON.
fn report(mut took: BTreeMap<&str, Vec<f64>>) -> Result<()> {
    println!("{:<52} {:>10} {:>10} {:>10}   p95 of alone", "milliseconds", "p50", "p95", "max");
    let alone = took.get_mut(LOADS[0].name).map(|took| quantile(took, 95)).context("no figures")?;
    let mut rows = Vec::new();
    let mut worst: f64 = 0.0;
    for load in &LOADS {
        let Some(took) = took.get_mut(load.name) else { continue };
        let p50 = quantile(took, 50);
        let p95 = quantile(took, 95);
        let max = quantile(took, 100);
        worst = worst.max(p95);
        let of_alone = p95 / alone;
        println!("{:<52} {p50:>10.1} {p95:>10.1} {max:>10.1}   {of_alone:.1} times", load.name);
        rows.push(json!({ "name": load.name, "p50_ms": p50, "p95_ms": p95, "max_ms": max }));
    }
    let kept = if worst < P95_MS_MAX { "kept" } else { "missed" };
    println!("The promise, p95 below {P95_MS_MAX} ms beside any load, is {kept}: {worst:.1} ms.");
    println!(
        "{}",
        json!({ "rounds": ROUNDS, "jobs": JOBS, "p95_ms_max": P95_MS_MAX, "rows": rows })
    );
    Ok(())
}

/// Milliseconds of each interactive job. The load is renewed until all of them are done or their time is up.
async fn beside(client: &Client, words: &[String], load: &Load) -> Result<Vec<f64>> {
    let mut figures = Vec::new();
    let began = Instant::now();
    let goes_on = |done: usize| done < JOBS && began.elapsed() < TIME_MAX;
    while goes_on(figures.len()) {
        let ids = submit(client, words, load).await?;
        if load.jobs == 0 {
            return interactive(client, words, JOBS).await;
        }
        tokio::time::sleep(UNDER_WAY).await;
        let last = ids.last().context("a load has jobs")?;
        while goes_on(figures.len()) {
            let one = interactive(client, words, 1).await?;
            // One that outlived the load was not beside it.
            if client.get(last).await?.is_some() {
                break;
            }
            figures.extend(one);
        }
        let mut outcomes = Box::pin(client.wait_many(ids, PATIENCE));
        while let Some((_, outcome)) = outcomes.next().await {
            let outcome = outcome?;
            ensure!(outcome.state == State::Succeeded, "a job of the load: {:?}", outcome.error);
        }
    }
    Ok(figures)
}

async fn submit(client: &Client, words: &[String], load: &Load) -> Result<Vec<JobId>> {
    let model: ModelId = MODEL.parse()?;
    let text = |n: usize| -> String {
        let from = (n * 31) % (words.len() - load.words);
        words[from..from + load.words].join(" ")
    };
    let job = |n: usize| {
        Job::embed(model.clone(), (0..load.texts).map(|i| text(n * load.texts + i)).collect())
    };
    let jobs: Vec<Job> = (0..load.jobs).map(job).collect();
    let ids = jobs.iter().map(|job| job.id.clone()).collect();
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs), Lane::Batch));
    while let Some((_, result)) = submitted.next().await {
        result?;
    }
    Ok(ids)
}

async fn interactive(client: &Client, words: &[String], jobs: usize) -> Result<Vec<f64>> {
    let mut figures = Vec::with_capacity(jobs);
    for n in 0..jobs {
        let job = Job::embed(MODEL.parse()?, vec![words[n * 12..][..12].join(" ")]);
        let began = Instant::now();
        let id = client.submit(job, Lane::Interactive).await?;
        let outcome = client.wait(&id, PATIENCE).await?;
        ensure!(outcome.state == State::Succeeded, "{:?}", outcome.error);
        figures.push(began.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(figures)
}

/// The words of the example texts, one after the other.
fn words() -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the checkout")?;
    let mut words = Vec::new();
    for line in BufReader::new(File::open(root.join("examples/data/descriptions.jsonl"))?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let text = line["text"].as_str().context("a line without a text")?;
        words.extend(text.split_whitespace().map(str::to_owned));
    }
    Ok(words)
}

fn quantile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}
