//! The demonstration: a running fleet embeds real texts, answers questions with them, and tells how
//! fast it was. Ends with 1 when anything was wrong.
//!
//! Takes the texts from its first argument, or from `examples/data/descriptions.jsonl`.

mod batch;
mod questions;
mod say;
mod summary;
mod texts;
mod vectors;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use forebay_fabric::Config;
use forebay_producer::{Client, ModelId};
use forebay_schemas::WorkerState;
use say::say;

const TEXTS_DEFAULT: &str = "examples/data/descriptions.jsonl";
/// How long a worker may take to load its model.
const WORKER_WAIT_MAX: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(problems) if problems.is_empty() => {
            say("\nEverything came back, and it means something.");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            for problem in problems {
                eprintln!("demo: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that went wrong without stopping the demonstration.
type Problems = Vec<String>;

async fn run() -> anyhow::Result<Problems> {
    let path = env::args_os().nth(1).map_or_else(|| TEXTS_DEFAULT.into(), PathBuf::from);
    let texts = texts::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    let config = Config::load(env::var_os("FOREBAY_CONFIG").map(PathBuf::from).as_deref())?.config;
    let model = config.models.keys().next().context("no model is configured")?.clone();
    let client = Client::connect(&config)?;
    wait_for_worker(&client, &model).await?;

    say(format_args!("{model} embeds {} texts from {}", texts.len(), path.display()));
    let run = batch::embed(&client, &model, &texts).await?;
    let mut problems = run.problems.clone();
    if run.vectors.is_empty() {
        problems.push("no vectors: there is nothing to ask".to_owned());
        return Ok(problems);
    }
    problems.extend(questions::ask(&client, &model, &run.vectors).await?);
    summary::print(&run, &client.workers().await?);
    client.close().await;
    Ok(problems)
}

async fn wait_for_worker(client: &Client, model: &ModelId) -> anyhow::Result<()> {
    let since = Instant::now();
    while since.elapsed() < WORKER_WAIT_MAX {
        let workers = client.workers().await?;
        let serves = |w: &&forebay_schemas::WorkerRecord| w.model == model.as_str();
        if workers.iter().filter(serves).any(|worker| worker.state == WorkerState::Ready) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("no worker of {model} is ready after {} s; see its log", WORKER_WAIT_MAX.as_secs())
}
