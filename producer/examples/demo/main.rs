//! The demo: a running fleet embeds real texts and answers questions with them, and a summary shows how fast it
//! was. Ends with 1 when anything was wrong.
//!
//! Takes the texts from its first argument, or from `examples/data/descriptions.jsonl`.

mod batch;
mod fleet;
mod print;
mod questions;
mod summary;
mod texts;
mod vectors;

use std::{env, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use fleet::Fleet;
use forebay_client::Client;
use forebay_fabric::Config;
use print::print_line;

const TEXTS_DEFAULT: &str = "examples/data/descriptions.jsonl";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(problems) if problems.is_empty() => {
            print_line("\nEvery result came back, and the answers make sense.");
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

/// Runs the demo. Returns everything that went wrong without stopping it.
async fn run() -> anyhow::Result<Vec<String>> {
    let path = env::args_os().nth(1).map_or_else(|| TEXTS_DEFAULT.into(), PathBuf::from);
    let texts = texts::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    let config = Config::load(env::var_os("FOREBAY_CONFIG").map(PathBuf::from).as_deref())?.config;
    let model = config.models.keys().next().context("no model is configured")?.clone();
    let client = Client::connect(&config)?;
    let fleet = Fleet::watch(client.clone(), model.clone());
    print_line(format_args!(
        "{model} embeds {} texts from {}, and no worker runs yet",
        texts.len(),
        path.display()
    ));
    let run = batch::embed(&client, &model, &texts).await?;
    let mut problems = run.problems.clone();
    if run.vectors.is_empty() {
        problems.push("no vectors, so no question can be answered".to_owned());
        return Ok(problems);
    }
    problems.extend(questions::ask(&client, &model, &run.vectors).await?);
    print_line("\nNo jobs are left: the fleet scales to zero.");
    let life = fleet.scaled_to_zero(run.began, Instant::now()).await;
    summary::print(&run, &life);
    problems.extend(life.problem());
    client.close().await;
    Ok(problems)
}
