//! The time from zero workers to the first result, and from the last result back to zero workers.
//!
//! `make bench` runs it against a stack of its own, whose workers stay `FOREBAY_BENCH_IDLE_S` seconds without work. The
//! peer is a cold start without a fleet: `forebay-worker embed` with one text. Both are measured in turns.
//! It prints a table and, last, one line of JSON.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command that prints tables

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::Config;
use forebay_schemas::State;
use serde_json::json;

const MODEL: &str = "all-minilm-l6-v2";
const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval of reading the registry.
const POLL_EVERY: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config::load(None)?.config;
    let client = Client::connect(&config)?;
    let idle_s: f64 = std::env::var("FOREBAY_BENCH_IDLE_S")
        .context("FOREBAY_BENCH_IDLE_S: how long a worker stays without work; run `make bench`")?
        .parse()?;
    let mut bare = Vec::new();
    let mut first = Vec::new();
    let mut zero = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("from zero and back, round {round} of {ROUNDS}");
        bare.push(bare_start()?);
        until_none(&client).await?;
        let began = Instant::now();
        let job = Job::embed(MODEL.parse()?, vec!["The water waits in front of the gates.".into()]);
        let id = client.submit(job, Lane::Interactive).await?;
        let outcome = client.wait(&id, PATIENCE).await?;
        ensure!(outcome.state == State::Succeeded, "{:?}", outcome.error);
        first.push(began.elapsed().as_secs_f64());
        let ended = Instant::now();
        until_none(&client).await?;
        zero.push(ended.elapsed().as_secs_f64());
    }
    client.close().await;
    println!("{:<52} {:>8} {:>8} {:>8}   of", "seconds", "min", "median", "max");
    let bare_median = median(&mut bare);
    row("forebay-worker embed, one text", &mut bare, None);
    row(
        "no worker: first submission to first result",
        &mut first,
        Some((bare_median, "the bare start")),
    );
    row("last result to no worker", &mut zero, Some((idle_s, "the idle time")));
    println!(
        "{}",
        json!({ "rounds": ROUNDS, "idle_s": idle_s, "bare_s": bare, "first_result_s": first, "to_zero_s": zero })
    );
    Ok(())
}

/// Seconds that the program takes from its start, over loading the weights, to one vector.
fn bare_start() -> Result<f64> {
    let program = std::env::var_os("FOREBAY_WORKER_PROGRAM").context("FOREBAY_WORKER_PROGRAM")?;
    let began = Instant::now();
    let mut worker = Command::new(program)
        .args(["embed", "--model", MODEL])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = worker.stdin.take().context("its input")?;
    writeln!(input, "{}", json!({ "id": "1", "text": "The water waits in front of the gates." }))?;
    drop(input);
    ensure!(worker.wait()?.success(), "forebay-worker embed failed");
    Ok(began.elapsed().as_secs_f64())
}

async fn until_none(client: &Client) -> Result<()> {
    let began = Instant::now();
    while !client.workers().await?.is_empty() {
        ensure!(
            began.elapsed() < PATIENCE,
            "workers are still there after {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn row(name: &str, seconds: &mut [f64], of: Option<(f64, &str)>) {
    let middle = median(seconds);
    let of =
        of.map_or_else(String::new, |(base, what)| format!("{:.2} times {what}", middle / base));
    let min = seconds[0];
    let max = seconds[seconds.len() - 1];
    println!("{name:<52} {min:>8.2} {middle:>8.2} {max:>8.2}   {of}");
}
