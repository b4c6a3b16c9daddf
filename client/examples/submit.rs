//! Submits one job with the client library and waits for its outcome.
#![allow(clippy::print_stdout)] // The answer is what this program is for.

use std::{env, path::PathBuf, time::Duration};

use forebay_client::{Client, Config, Job, Lane, Output};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(env::var_os("FOREBAY_CONFIG").map(PathBuf::from).as_deref())?.config;
    let client = Client::connect(&config)?;
    let text = "Water waits behind the gate.".to_owned();
    let job = Job::embed("all-minilm-l6-v2".parse()?, vec![text]);
    let id = client.submit(job, Lane::Interactive).await?;
    let outcome = client.wait(&id, Duration::from_secs(60)).await?;
    client.close().await;
    match (outcome.output, outcome.error) {
        (Some(Output::Embed(vectors)), _) => println!("{}: {} numbers", outcome.state, vectors.dim),
        (_, Some(error)) => return Err(error.into()),
        _ => return Err("an outcome without vectors".into()),
    }
    Ok(())
}
