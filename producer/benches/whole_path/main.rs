//! The throughput of the whole path compared with the engine alone, and of client and subscription compared with lapin.
//!
//! `make bench` runs it against a stack of its own: one worker, the example texts. Both sides of a ratio are
//! measured in the same run, in turns, since machines drift. It prints tables and, last, one
//! line of JSON.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command that prints tables

#[path = "../figures/mod.rs"]
mod figures;
mod messaging;

use std::{
    fs::File,
    io::{BufReader, prelude::*},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::{Config, config::ModelConfig};
use forebay_schemas::{JobId, ModelId, State};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::{figures::row, messaging::BareClient};

const MODEL: &str = "all-minilm-l6-v2";
const ROUNDS: usize = 5;
const TEXTS_A_JOB: usize = 8;
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::load(None)?.config;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the checkout")?;
    let file = root.join("examples/data/descriptions.jsonl");
    config.models.insert(messaging::SINK.parse()?, ModelConfig::of("folder:."));
    let engine = Engine::of(root);

    let mut rows = whole_path_rows(&config, &engine, &file).await?;
    rows.extend(messaging_rows(&config).await?);
    println!("{}", json!({ "rounds": ROUNDS, "texts_a_job": TEXTS_A_JOB, "rows": rows }));
    Ok(())
}

async fn whole_path_rows(config: &Config, engine: &Engine, file: &Path) -> Result<Vec<Value>> {
    let mut alone = Vec::new();
    let mut path = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("engine and whole path, round {round} of {ROUNDS}");
        alone.push(rate(&engine.run(file)?)?);
        path.push(whole_path(config, file).await?);
    }
    figures::head();
    Ok(vec![
        row("engine alone, tokens/s", &alone, None),
        row("whole path, one worker, tokens/s", &path, Some(&alone)),
    ])
}

async fn messaging_rows(config: &Config) -> Result<Vec<Value>> {
    let mut publish = Vec::new();
    let mut publish_bare = Vec::new();
    let mut consume = Vec::new();
    let mut consume_bare = Vec::new();
    let bare = BareClient::connect(config).await?;
    for round in 1..=ROUNDS {
        eprintln!("messaging, round {round} of {ROUNDS}");
        publish.push(messaging::publish_rate(config).await?);
        consume.push(messaging::consume_rate(config).await?);
        publish_bare.push(bare.publish_rate().await?);
        consume_bare.push(bare.consume_rate().await?);
    }
    bare.remove_sink().await?;
    figures::head();
    Ok(vec![
        row("lapin, confirmed publishes/s", &publish_bare, None),
        row("client library, confirmed publishes/s", &publish, Some(&publish_bare)),
        row("lapin, consumed and acknowledged/s", &consume_bare, None),
        row("subscription, consumed and acknowledged/s", &consume, Some(&consume_bare)),
    ])
}

/// The engine alone: `forebay-worker embed`.
struct Engine {
    program: PathBuf,
}

impl Engine {
    fn of(root: &Path) -> Self {
        let program = std::env::var_os("FOREBAY_WORKER_PROGRAM")
            .map_or_else(|| root.join("target/release/forebay-worker"), Into::into);
        Self { program }
    }

    /// Runs it once. Returns its own summary, whose time begins when the model is loaded.
    fn run(&self, texts: &Path) -> Result<Value> {
        let output = Command::new(&self.program)
            .args(["embed", "--model", MODEL])
            .stdin(File::open(texts)?)
            .stdout(Stdio::null())
            .output()
            .with_context(|| format!("running {}", self.program.display()))?;
        let log = String::from_utf8_lossy(&output.stderr);
        serde_json::from_str(log.lines().last().unwrap_or_default())
            .with_context(|| format!("the summary of the engine: {log}"))
    }
}

fn rate(summary: &Value) -> Result<f64> {
    summary["tokens_per_s"].as_f64().context("no tokens_per_s")
}

/// Tokens a second from the first submission to the last result read.
async fn whole_path(config: &Config, file: &Path) -> Result<f64> {
    let client = Client::connect(config)?;
    let model: ModelId = MODEL.parse()?;
    let lines = BufReader::new(File::open(file)?).lines().collect::<Result<Vec<_>, _>>()?;
    let mut texts = Vec::with_capacity(lines.len());
    for line in &lines {
        let line: Value = serde_json::from_str(line)?;
        texts.push(line["text"].as_str().context("a line without a text")?.to_owned());
    }
    let jobs: Vec<Job> =
        texts.chunks(TEXTS_A_JOB).map(|texts| Job::embed(model.clone(), texts.to_vec())).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();

    let started = Instant::now();
    let submit = async {
        let mut submitted = Box::pin(client.submit_many(stream::iter(jobs), Lane::Batch));
        while let Some((_, result)) = submitted.next().await {
            result?;
        }
        anyhow::Ok(())
    };
    let wait = async {
        let mut tokens = 0;
        let mut outcomes = Box::pin(client.wait_many(ids, PATIENCE));
        while let Some((_, outcome)) = outcomes.next().await {
            let outcome = outcome?;
            ensure!(outcome.state == State::Succeeded, "a job ended as {}", outcome.state);
            tokens += outcome.usage.input_tokens;
        }
        anyhow::Ok(tokens)
    };
    let ((), tokens) = tokio::try_join!(submit, wait)?;
    Ok(tokens as f64 / started.elapsed().as_secs_f64())
}
