//! A fleet whose model generates text, and what its jobs leave in the store.

use std::fs;
use std::os::unix::fs::symlink;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::job::Job;
use crate::model::models_folder;
use crate::service::Service;
use crate::stack::Stack;

/// A small model that generates text, fetched by `forebay pull smollm2-135m-instruct`.
pub const GENERATOR: &str = "smollm2-135m-instruct";

/// The routing key of its interactive lane.
pub const INTERACTIVE: &str = "smollm2-135m-instruct.interactive";

/// Fails with the remedy when the model is not where the services look for it.
fn require_model() {
    let folder = models_folder().join(GENERATOR);
    assert!(folder.exists(), "no model at {}; run: forebay pull {GENERATOR}", folder.display());
}

/// A worker of the model, ready.
pub async fn worker(stack: &Stack, overrides: &[(&str, &str)]) -> Service {
    starting_worker(stack, overrides).ready().await
}

/// Starts a worker of the model and does not wait until it is ready.
pub fn starting_worker(stack: &Stack, overrides: &[(&str, &str)]) -> Service {
    require_model();
    let mut command = stack.program("forebay-worker", overrides);
    command.args(["--model", GENERATOR, "--threads", "1", "--dtype", "f32"]);
    Service::start("forebay-worker", command, stack.store.folder())
}

/// A stack whose autoscalers launch workers of the model as these lines of its pool say.
pub async fn pooled(pool: &str) -> Stack {
    require_model();
    let stack = Stack::start().await.pooled("min = 0\nmax = 0");
    let folder = fs::canonicalize(models_folder().join(GENERATOR)).expect("the model's folder");
    symlink(&folder, stack.tiny_model().with_file_name(GENERATOR)).expect("link the model");
    let settings = stack.pools().settings();
    let model = format!("[models.{GENERATOR}]\nsource = \"folder:{}\"\n", folder.display());
    stack.write_config(&format!("{settings}\n{model}[models.{GENERATOR}.pool]\n{pool}\n"));
    stack
}

/// A `generate` job that answers `question`, taking the likeliest tokens, with these parameters besides.
pub fn chat(question: &str, params: &Value) -> Job {
    let messages = json!([{"role": "user", "content": question}]);
    let mut all = json!({"temperature": 0, "return_token_ids": true});
    for (name, value) in params.as_object().expect("a map") {
        all[name] = value.clone();
    }
    Job::embed("")
        .of(GENERATOR)
        .with("task", "generate")
        .with("input", json!({"messages": messages}))
        .with("params", all)
}

/// A job that goes on for so many tokens, whatever they are; each `seed` has others.
pub fn long(seed: u64, tokens: u32) -> Job {
    let params =
        json!({"max_tokens": tokens, "ignore_eos": true, "temperature": 0.8, "seed": seed});
    chat("Describe a river.", &params)
}

/// An output as it is compared, by bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// The token ids.
    pub ids: Vec<u64>,
    /// Every log-probability that was asked for, with its token's id: of each token picked, and then of the likeliest.
    pub logprobs: Vec<(u64, u32)>,
    /// Why it ended.
    pub finish_reason: String,
}

impl Generated {
    /// Reads an output with token ids, of a record in either codec; `None` where it has none.
    pub fn of(output: &Value) -> Option<Self> {
        let likely = |token: &Value| {
            let logprob = token["logprob"].as_f64()? as f32;
            Some((token["id"].as_u64()?, logprob.to_bits()))
        };
        let mut logprobs = Vec::new();
        for token in output["logprobs"].as_array().into_iter().flatten() {
            logprobs.push(likely(token)?);
            for top in token["top"].as_array().into_iter().flatten() {
                logprobs.push(likely(top)?);
            }
        }
        let ids = output["token_ids"].as_array()?;
        Some(Self {
            text: output["text"].as_str()?.to_owned(),
            ids: ids.iter().map(Value::as_u64).collect::<Option<_>>()?,
            logprobs,
            finish_reason: output["finish_reason"].as_str()?.to_owned(),
        })
    }
}

/// An entry of a token stream: the tokens before it, its tokens, and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// How many tokens came before.
    pub at: u64,
    /// Its tokens.
    pub ids: Vec<u64>,
    /// Its text.
    pub text: String,
}

/// The entries of a job's token stream that have tokens, read without the project's own codecs.
pub async fn stream(redis: &mut MultiplexedConnection, id: &str) -> Vec<Chunk> {
    entries(redis, id).await.into_iter().flatten().collect()
}

/// All entries of a job's token stream; `None` stands for a worker that took it up again.
pub async fn entries(redis: &mut MultiplexedConnection, id: &str) -> Vec<Option<Chunk>> {
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let entries: Vec<Entry> = redis::cmd("XRANGE")
        .arg(format!("forebay:tokens:{id}"))
        .arg("-")
        .arg("+")
        .query_async(redis)
        .await
        .expect("ask Redis");
    let fields = entries.into_iter().flat_map(|(_, fields)| fields);
    let chunks = fields.filter(|(name, _)| name == "c");
    chunks.map(|(_, bytes)| (!bytes.is_empty()).then(|| decode(&bytes))).collect()
}

fn decode(bytes: &[u8]) -> Chunk {
    let value = rmpv::decode::read_value(&mut &*bytes).expect("a msgpack entry");
    let ids = value["ids"].as_array().expect("token ids");
    Chunk {
        at: value["at"].as_u64().expect("a position"),
        ids: ids.iter().map(|id| id.as_u64().expect("a token id")).collect(),
        text: value["text"].as_str().expect("a text").to_owned(),
    }
}

/// All tokens and all text of entries, which must follow each other.
pub fn whole(chunks: &[Chunk]) -> (Vec<u64>, String) {
    let mut ids = Vec::new();
    let mut text = String::new();
    for chunk in chunks {
        assert_eq!(chunk.at, ids.len() as u64, "a gap or an overlap in {chunks:?}");
        ids.extend_from_slice(&chunk.ids);
        text.push_str(&chunk.text);
    }
    (ids, text)
}

/// The token ids of an output.
pub fn ids(output: &Value) -> Vec<u64> {
    let ids = output["token_ids"].as_array().unwrap_or_else(|| panic!("no token ids in {output}"));
    ids.iter().map(|id| id.as_u64().expect("a token id")).collect()
}
