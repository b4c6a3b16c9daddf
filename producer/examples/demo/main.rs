//! The demonstration: a running fleet embeds real texts, answers questions with them, and tells how
//! fast it was. Ends with 1 when anything was wrong.
//!
//! Takes the texts from its first argument, or from `examples/data/descriptions.jsonl`.

mod batch;
mod fleet;
mod questions;
mod say;
mod summary;
mod texts;
mod vectors;

use std::{env, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use fleet::Fleet;
use forebay_fabric::Config;
use forebay_producer::Client;
use say::say;

const TEXTS_DEFAULT: &str = "examples/data/descriptions.jsonl";

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
    let fleet = Fleet::watch(client.clone(), model.clone());
    say(format_args!(
        "{model} embeds {} texts from {}, and no worker runs yet",
        texts.len(),
        path.display()
    ));
    let run = batch::embed(&client, &model, &texts).await?;
    let mut problems = run.problems.clone();
    if run.vectors.is_empty() {
        problems.push("no vectors: there is nothing to ask".to_owned());
        return Ok(problems);
    }
    problems.extend(questions::ask(&client, &model, &run.vectors).await?);
    say("\nNothing is left to do: the workers go.");
    let life = fleet.comes_to_rest(run.began, Instant::now()).await;
    summary::print(&run, &life);
    problems.extend(life.problem());
    client.close().await;
    Ok(problems)
}
