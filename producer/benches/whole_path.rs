//! How fast the whole path is beside the bare engine, and the plumbing beside bare lapin.
//!
//! `make bench` runs it against a stack of its own: one worker, the example texts. Both sides of a ratio are
//! measured in the same run, in turns, since machines drift. It prints a table for people and, last, one
//! line of JSON for machines.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command for people

use std::{
    fs::File,
    io::{BufReader, prelude::*},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_fabric::{Broker, Config, config::ModelConfig};
use forebay_producer::{Client, Job, Lane};
use forebay_schemas::{
    ContentType, JobId, MESSAGE_TYPE, ModelId, State, names::JOBS, topology::Topology,
};
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};

const MODEL: &str = "all-minilm-l6-v2";
/// Has queues and no worker.
const SINK: &str = "bench-sink";
const ROUNDS: usize = 3;
const TEXTS_A_JOB: usize = 8;
const MESSAGES: usize = 10_000;
const IN_FLIGHT: usize = 1_024;
const PREFETCH: u16 = 256;
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::load(None)?.config;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the checkout")?;
    let file = root.join("examples/data/descriptions.jsonl");
    let source = ModelConfig { source: "folder:.".into(), sha256: None };
    config.models.insert(SINK.parse()?, source);

    let mut engine = Vec::new();
    let mut path = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("engine and whole path, round {round} of {ROUNDS}");
        engine.push(bare_engine(root, &file)?);
        path.push(whole_path(&config, &file).await?);
    }
    let (mut publish, mut publish_bare) = (Vec::new(), Vec::new());
    let (mut consume, mut consume_bare) = (Vec::new(), Vec::new());
    let bare = BareClient::connect(&config).await?;
    for round in 1..=ROUNDS {
        eprintln!("plumbing, round {round} of {ROUNDS}");
        publish.push(publish_rate(&config).await?);
        consume.push(consume_rate(&config).await?);
        publish_bare.push(bare.publish_rate().await?);
        consume_bare.push(bare.consume_rate().await?);
    }
    bare.remove_sink().await?;

    println!("{:<44} {:>10} {:>10} {:>10}   of peer", "", "min", "median", "max");
    let rows = [
        row("engine alone, tokens/s", &engine, None),
        row("whole path, one worker, tokens/s", &path, Some(&engine)),
        row("lapin, confirmed publishes/s", &publish_bare, None),
        row("client library, confirmed publishes/s", &publish, Some(&publish_bare)),
        row("lapin, consumed and acknowledged/s", &consume_bare, None),
        row("subscription, consumed and acknowledged/s", &consume, Some(&consume_bare)),
    ];
    println!("{}", json!({ "rounds": ROUNDS, "texts_a_job": TEXTS_A_JOB, "rows": rows }));
    Ok(())
}

/// Prints one row; its share of the peer is the median over the rounds of the two's ratio.
fn row(name: &str, figures: &[f64], peer: Option<&[f64]>) -> Value {
    let (min, median, max) = spread(figures);
    let share = peer.map(|peer| {
        let ratios: Vec<f64> =
            figures.iter().zip(peer).map(|(ours, theirs)| ours / theirs).collect();
        spread(&ratios).1
    });
    let shown = share.map_or(String::new(), |share| format!("{:.1} %", share * 100.0));
    println!("{name:<44} {min:>10.0} {median:>10.0} {max:>10.0}   {shown}");
    json!({ "name": name, "min": min, "median": median, "max": max, "of_peer": share })
}

fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

/// Tokens a second of `forebay-worker embed`, by its own summary.
fn bare_engine(root: &Path, file: &Path) -> Result<f64> {
    let program = std::env::var_os("FOREBAY_WORKER_PROGRAM")
        .map_or_else(|| root.join("target/release/forebay-worker"), Into::into);
    let output = Command::new(&program)
        .args(["embed", "--model", MODEL])
        .stdin(File::open(file)?)
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let summary: Value = serde_json::from_str(log.lines().last().unwrap_or_default())
        .with_context(|| format!("the summary of the engine: {log}"))?;
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

fn small_job() -> Result<Job> {
    Ok(Job::embed(SINK.parse()?, vec!["x".repeat(450)]))
}

/// Confirmed publishes a second of the client library.
async fn publish_rate(config: &Config) -> Result<f64> {
    let client = Client::connect(config)?;
    client.submit(small_job()?, Lane::Batch).await?;
    let jobs = (1..MESSAGES).map(|_| small_job()).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs), Lane::Batch));
    while let Some((_, result)) = submitted.next().await {
        result?;
    }
    Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
}

/// Messages a second that a subscription takes and acknowledges.
async fn consume_rate(config: &Config) -> Result<f64> {
    let topology = Topology::new(config.models.keys(), &config.queues);
    let broker = Broker::start(config, "bench", topology)?;
    broker.ready().await?;
    let mut subscription = broker.subscribe(&Lane::Batch.queue(&SINK.parse()?), PREFETCH);
    let started = Instant::now();
    let mut taken = 0;
    while taken < MESSAGES {
        let mut acks = Vec::with_capacity(64);
        while acks.len() < 64 && taken < MESSAGES {
            let delivery = subscription.next().await.context("the subscription ended")?;
            acks.push(delivery.acker.ack());
            taken += 1;
        }
        futures_util::future::join_all(acks).await;
    }
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    subscription.stop().await;
    broker.close().await;
    Ok(rate)
}

/// The same with nothing but lapin.
struct BareClient {
    connection: Connection,
    queue: String,
}

impl BareClient {
    async fn connect(config: &Config) -> Result<Self> {
        let url = config.amqp_url.expose();
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        Ok(Self { connection, queue: Lane::Batch.queue(&SINK.parse()?) })
    }

    async fn publish_rate(&self) -> Result<f64> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let jobs = (0..MESSAGES).map(|_| small_job()).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        let publishes = jobs.iter().map(|job| publish(&channel, job));
        let mut confirmed = stream::iter(publishes).buffer_unordered(IN_FLIGHT);
        while let Some(result) = confirmed.next().await {
            result?;
        }
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    async fn consume_rate(&self) -> Result<f64> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
        let queue = self.queue.as_str();
        let mut consumer = channel.basic_consume(queue.into(), "".into(), options, table).await?;
        let started = Instant::now();
        let mut taken = 0;
        while taken < MESSAGES {
            let mut acks = Vec::with_capacity(64);
            while acks.len() < 64 && taken < MESSAGES {
                let delivery = consumer.next().await.context("the consumer ended")??;
                acks.push(async move { delivery.ack(BasicAckOptions::default()).await });
                taken += 1;
            }
            for acked in futures_util::future::join_all(acks).await {
                ensure!(acked?, "an acknowledgement was lost");
            }
        }
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    async fn remove_sink(&self) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.queue_purge(self.queue.as_str().into(), QueuePurgeOptions::default()).await?;
        for lane in Lane::ALL {
            let queue = lane.queue(&SINK.parse()?);
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        Ok(())
    }
}

async fn publish(channel: &Channel, job: &Job) -> Result<()> {
    let properties = BasicProperties::default()
        .with_content_type(ContentType::Msgpack.as_str().into())
        .with_message_id(job.id.as_str().into())
        .with_delivery_mode(2)
        .with_type(MESSAGE_TYPE.into());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let body = job.encode(ContentType::Msgpack)?;
    let sent = channel.basic_publish(JOBS.into(), SINK.into(), options, &body, properties).await?;
    ensure!(sent.await?.is_ack(), "a publish was refused");
    Ok(())
}
