//! Asks a gateway for the vectors of texts by `async-openai`, by its defaults: the texts come on standard input as
//! `{"texts": [...]}`, and `{"version": ..., "vectors": [[...]]}` is printed.

use std::{env, error::Error, io};

use async_openai::{Client, config::OpenAIConfig, types::embeddings::CreateEmbeddingRequestArgs};
use serde_json::{Value, json};

/// Of the crate that is asked with.
const LOCK: &str = include_str!("../Cargo.lock");

fn main() -> Result<(), Box<dyn Error>> {
    let asked: Value = serde_json::from_reader(io::stdin())?;
    let texts: Vec<String> = serde_json::from_value(asked["texts"].clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let vectors = runtime.block_on(embed(texts))?;
    println!("{}", json!({ "version": version(), "vectors": vectors }));
    Ok(())
}

async fn embed(texts: Vec<String>) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let config = OpenAIConfig::new()
        .with_api_base(format!("{}/v1", env::var("FOREBAY_GATEWAY_URL")?))
        .with_api_key(env::var("FOREBAY_API_KEY")?);
    let request = CreateEmbeddingRequestArgs::default()
        .model(env::var("FOREBAY_MODEL")?)
        .input(texts)
        .build()?;
    let answer = Client::with_config(config).embeddings().create(request).await?;
    Ok(answer.data.into_iter().map(|row| row.embedding).collect())
}

/// The version that the lock file pins.
fn version() -> &'static str {
    let package = LOCK.split("[[package]]").find(|text| text.contains("name = \"async-openai\""));
    package
        .and_then(|text| text.split("version = \"").nth(1)?.split('"').next())
        .unwrap_or_default()
}
