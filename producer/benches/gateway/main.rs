//! The cost of the gateway: governed requests for the vector of one short text, with a worker whose model computes
//! nothing, beside the same job by RabbitMQ and Redis, and beside other gateways where they are installed.
//!
//! `make bench` runs it against a broker and a Redis of its own. Every request has a key, and its tenant has limits on
//! requests, tokens and requests in flight, which are reserved and settled and never reached. The other gateways have a
//! key and limits too, as far as they go without a database, and a server behind them that answers at once: no queue,
//! no store. What each adds is measured at one connection, in turns with the way that has no gateway.
//!
//! It prints a table and, last, one line of JSON; it takes some five minutes, two of them for the limit's exactness.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command that prints tables

mod backend;
mod http;
mod limits;
mod load;
mod peers;
mod program;
#[path = "../noop/worker.rs"]
mod worker;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::Config;
use forebay_schemas::{ModelId, State};
use serde_json::{Value, json};

use crate::{
    http::{Connection, TEXT, Target},
    load::{Rate, Times, in_turns, rate},
    peers::Peer,
    program::{Program, free_port},
    worker::{Fixture, MODEL},
};

const STARTS: usize = 5;
/// Requests of each way at one connection; a tenth as many where each takes long.
const ROUNDS: usize = 2_000;
const SLOW_ROUNDS: usize = 300;
const CONNECTIONS: [usize; 2] = [32, 64];
const LOAD: Duration = Duration::from_secs(5);
/// From the first answer until its memory counts as that of an idle program, and from the last one.
const SETTLES: Duration = Duration::from_secs(2);
const RESTS: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures of one gateway.
struct Figures {
    name: String,
    first_answer_ms: f64,
    idle_mb: f64,
    without: Times,
    with: Times,
    rates: Vec<Rate>,
    rested_mb: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let like = Config::load(None)?.config.model_dir(&"all-minilm-l6-v2".parse()?)?;
    let fixture = Fixture::create(&like)?;
    let folder = tempfile::TempDir::new()?;
    let mut worker = fixture.start()?;
    worker.ready().await?;
    eprintln!("worker {} of a model that computes nothing", worker.id());
    let key = tenant(&fixture, "bench", ["1000000000000"; 3])?;
    let mut all = vec![ours(&fixture, folder.path(), &key).await?];
    let exact = exactness(&fixture, folder.path()).await?;
    worker.stop().await?;
    let backend = backend::start(MODEL).await?;
    let direct = Target::embeddings(backend, MODEL, TEXT, "none");
    let bare = rate(&direct, CONNECTIONS[0], LOAD, None).await?;
    if let Some(environment) = std::env::var_os("FOREBAY_BENCH_GATEWAYS").map(PathBuf::from) {
        for peer in Peer::ALL {
            match peer.installed(&environment) {
                Some(name) => {
                    let started = || peer.start(&environment, folder.path(), backend);
                    all.push(theirs(peer, name, started, &direct).await?);
                }
                None => {
                    eprintln!("A peer is missing in {}: see scripts/bench.", environment.display());
                }
            }
        }
    } else {
        eprintln!(
            "FOREBAY_BENCH_GATEWAYS names no environment with other gateways: none is measured."
        );
    }
    report(&all, &bare, &exact);
    Ok(())
}

/// A new tenant with limits on requests, tokens and requests in flight, and its key.
fn tenant(fixture: &Fixture, name: &str, limits: [&str; 3]) -> Result<String> {
    let [requests, tokens, in_flight] = limits;
    let create = ["tenants", "create", name, "--requests-per-minute", requests];
    command(
        fixture,
        &[&create[..], &["--tokens-per-minute", tokens, "--in-flight", in_flight]].concat(),
    )?;
    command(fixture, &["keys", "create", "--tenant", name])
}

/// Runs `forebay` and returns what it printed.
fn command(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program("forebay")?);
    let output = command.args(arguments).env("FOREBAY_CONFIG", fixture.settings()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "forebay {arguments:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// A program beside the worker's.
fn program(name: &str) -> Result<PathBuf> {
    let worker = std::env::var_os("FOREBAY_WORKER_PROGRAM").context("FOREBAY_WORKER_PROGRAM")?;
    Ok(PathBuf::from(worker).with_file_name(name))
}

fn gateway(fixture: &Fixture, folder: &Path, key: &str) -> Result<(Program, Target)> {
    let port = free_port()?;
    let mut command = Command::new(program("forebay-gateway")?);
    command.env("FOREBAY_CONFIG", fixture.settings());
    command.env("FOREBAY_GATEWAY__LISTEN", format!("127.0.0.1:{port}"));
    command.env("FOREBAY_TELEMETRY__LISTEN", OsStr::new("127.0.0.1:0"));
    let program = Program::start(&format!("gateway-{port}"), command, folder)?;
    Ok((program, Target::embeddings(port, MODEL, TEXT, key)))
}

async fn ours(fixture: &Fixture, folder: &Path, key: &str) -> Result<Figures> {
    let mut starts = Vec::new();
    for _ in 1..STARTS {
        let (mut program, target) = gateway(fixture, folder, key)?;
        starts.push(program.first_answer(&target).await?.as_secs_f64() * 1e3);
    }
    let (mut program, target) = gateway(fixture, folder, key)?;
    starts.push(program.first_answer(&target).await?.as_secs_f64() * 1e3);
    starts.sort_by(f64::total_cmp);
    tokio::time::sleep(SETTLES).await;
    let idle_mb = program.used()?.memory_mb;
    eprintln!("forebay-gateway at one connection");
    let client = Client::connect(&fixture.config()?)?;
    let model: ModelId = MODEL.parse()?;
    let by_queue = async || {
        let job = Job::embed(model.clone(), vec![TEXT.to_owned()]);
        let id = client.submit(job, Lane::Interactive).await?;
        let outcome = client.wait(&id, PATIENCE).await?;
        ensure!(outcome.state == State::Succeeded, "{:?}", outcome.error);
        Ok(())
    };
    let [without, with] = in_turns(ROUNDS, by_queue, asking(&target).await?).await?;
    client.close().await;
    let (rates, rested_mb) = loaded("forebay-gateway", &program, &target).await?;
    let name = "forebay-gateway".to_owned();
    Ok(Figures {
        name,
        first_answer_ms: starts[STARTS / 2],
        idle_mb,
        without,
        with,
        rates,
        rested_mb,
    })
}

async fn theirs(
    peer: Peer,
    name: String,
    start: impl Fn() -> Result<(Program, Target)>,
    direct: &Target,
) -> Result<Figures> {
    let (mut program, target) = start()?;
    let first_answer_ms = program.first_answer(&target).await?.as_secs_f64() * 1e3;
    tokio::time::sleep(SETTLES).await;
    let idle_mb = program.used()?.memory_mb;
    eprintln!("{name} at one connection");
    let rounds = if peer == Peer::LiteLlm { SLOW_ROUNDS } else { ROUNDS };
    let [without, with] = in_turns(rounds, asking(direct).await?, asking(&target).await?).await?;
    let (rates, rested_mb) = loaded(&name, &program, &target).await?;
    Ok(Figures { name, first_answer_ms, idle_mb, without, with, rates, rested_mb })
}

/// Asks once on a connection that stays open.
async fn asking(target: &Target) -> Result<impl AsyncFnMut() -> Result<()> + use<>> {
    let target = target.clone();
    let mut connection = Connection::open(&target).await?;
    Ok(async move || {
        let answer = connection.ask(&target).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, connection.last());
        Ok(())
    })
}

async fn loaded(name: &str, program: &Program, target: &Target) -> Result<(Vec<Rate>, f64)> {
    let mut rates = Vec::new();
    for connections in CONNECTIONS {
        eprintln!("{name} at {connections} connections");
        rates.push(rate(target, connections, LOAD, Some(program)).await?);
    }
    tokio::time::sleep(RESTS).await;
    Ok((rates, program.used()?.memory_mb))
}

async fn exactness(fixture: &Fixture, folder: &Path) -> Result<Value> {
    eprintln!("two replicas, saturated by one tenant for two minutes");
    let key = tenant(fixture, "limited", [&limits::LIMIT.to_string(), "1000000000000", "1000000"])?;
    let mut replicas = [gateway(fixture, folder, &key)?, gateway(fixture, folder, &key)?];
    let others = tenant(fixture, "first", ["1000000000000"; 3])?;
    for (program, target) in &mut replicas {
        // By another tenant: the first that counts is to be the first of its own.
        let first = Target::embeddings(target.address.port(), MODEL, TEXT, &others);
        program.first_answer(&first).await?;
    }
    limits::saturate(replicas.each_ref().map(|(_, target)| target.clone())).await
}

/// Prints the table and the line of JSON.
fn report(all: &[Figures], bare: &Rate, exact: &Value) {
    print!("{:<46}", "");
    for figures in all {
        print!(" {:>18} {:>8}", figures.name, "of ours");
    }
    println!();
    let row = |name: &str, of: &dyn Fn(&Figures) -> f64| {
        print!("{name:<46}");
        let ours = all.first().map_or(f64::NAN, of);
        for figures in all {
            print!(" {:>18.2} {:>8.2}", of(figures), of(figures) / ours);
        }
        println!();
    };
    row("start to first answer, ms", &|figures| figures.first_answer_ms);
    row("without it at one connection, p50, ms", &|figures| figures.without.p50);
    row("added at one connection, p50, ms", &|figures| figures.with.p50 - figures.without.p50);
    row("added at one connection, p99, ms", &|figures| figures.with.p99 - figures.without.p99);
    for (at, connections) in CONNECTIONS.iter().enumerate() {
        row(&format!("at {connections} connections, requests/s"), &|figures| {
            figures.rates[at].per_s
        });
        row(&format!("at {connections} connections, p99, ms"), &|figures| {
            figures.rates[at].times.p99
        });
        let name = format!("at {connections} connections, processor us a request");
        row(&name, &|figures| figures.rates[at].program_us);
    }
    row("memory idle, MB", &|figures| figures.idle_mb);
    row("memory under load, MB", &|figures| {
        figures.rates.iter().map(|rate| rate.memory_mb).fold(0.0, f64::max)
    });
    row("memory 30 s later, MB", &|figures| figures.rested_mb);
    println!(
        "The load itself, with the server behind the peers in one process: {:.0} requests/s, {:.0} us each.",
        bare.per_s, bare.load_us
    );
    let gateways: Vec<Value> = all.iter().map(json_of).collect();
    println!("{}", json!({ "gateways": gateways, "load": bare.json(), "limit": exact }));
}

fn json_of(figures: &Figures) -> Value {
    let rates: Vec<Value> = figures.rates.iter().map(Rate::json).collect();
    json!({
        "name": figures.name, "first_answer_ms": figures.first_answer_ms, "idle_mb": figures.idle_mb,
        "without": figures.without.json(), "with": figures.with.json(), "rates": rates,
        "rested_mb": figures.rested_mb,
    })
}
