//! `forebay-worker`: runs one model for the fleet, or the engine alone.
// Doc comments on arguments are help texts: no markup.
#![allow(clippy::doc_markdown)]

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use forebay_consumer::{
    WorkerError,
    encode::{command, packer::BatchLimits},
    generate::{self, prompts::Settings},
    loading, worker,
};
use forebay_engine::{DType, Device, LoadOptions, ModelTask};
use forebay_fabric::{Config, shutdown, telemetry};
use forebay_schemas::ModelId;

/// Drains a model's queues in large packed batches and writes the results to Redis.
///
/// Stops on SIGTERM: finishes what it holds within worker.grace_s and gives the rest back.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration; without it, forebay.toml if there is one.
    #[arg(long, env = "FOREBAY_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration, secrets hidden, and exit.
    #[arg(long)]
    print_config: bool,
    /// The worker's name in the registry; made of host and process id if not given.
    #[arg(long, env = "FOREBAY_WORKER_NAME", value_parser = worker_name)]
    name: Option<String>,
    #[command(flatten)]
    engine: EngineArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the engine alone: {"id", "text"} lines in, {"id", "embedding"} lines out, in order.
    Embed,
    /// Run the generator alone: {"id", "prompt"} or {"id", "messages"} lines in, with "params" where wanted; {"id",
    /// "text", "token_ids", "finish_reason"} lines out, in order.
    Generate {
        /// How many sequences are computed at once.
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
        /// The most tokens of an answer, where a line does not say it.
        #[arg(long, default_value_t = 256)]
        max_tokens: usize,
        /// 0 for the likeliest token each time, where a line does not say it.
        #[arg(long, default_value_t = 0.0)]
        temperature: f32,
    },
}

#[derive(clap::Args)]
struct EngineArguments {
    /// The model to run; the configuration's only one if not named.
    #[arg(long, global = true)]
    model: Option<ModelId>,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, global = true, default_value = "cpu")]
    device: Device,
    /// In which number type: f32, bf16, f16, int8 or q4; as the configuration says if not named, else the device's
    /// best, which is never int8 or q4.
    #[arg(long, global = true)]
    dtype: Option<DType>,
    /// On how many threads; all processors if not named.
    #[arg(long, global = true)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then there is no other way to report this.
            let error_line = forebay_fabric::with_causes(error.as_ref());
            let _ = writeln!(io::stderr(), "forebay-worker: {error_line}");
            ExitCode::from(error.downcast_ref::<WorkerError>().map_or(1, WorkerError::exit_code))
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    forebay_fabric::install_crypto();
    let loaded = Config::load(arguments.config.as_deref()).map_err(WorkerError::from)?;
    let config = loaded.config;
    if arguments.print_config {
        return write!(io::stdout(), "{}", config.to_toml()).context("printing the configuration");
    }
    telemetry::init_logs(&config.telemetry).map_err(WorkerError::from)?;
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    let EngineArguments { model, device, dtype, threads } = arguments.engine;
    let model = worker::choose_model(&config, model)?;
    let dtype = dtype.or_else(|| loading::dtype_of(&config, &model));
    let reranks = loading::reranks(&config, &model);
    let options = LoadOptions { device, dtype, threads, reranks, ..LoadOptions::default() };
    match arguments.command {
        Some(Command::Embed) => run_embed(&config, &model, &options),
        Some(Command::Generate { concurrency, max_tokens, temperature }) => {
            let settings = Settings { concurrency, tokens_max: max_tokens, temperature };
            run_generate(&config, &model, &options, settings)
        }
        None => run_worker(config, model, options, arguments.name),
    }
}

/// A name becomes part of a Redis key and of log lines.
fn worker_name(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=128).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name.to_owned());
    }
    Err("use 1 to 128 of a-z, A-Z, 0-9, dots, underscores and dashes".into())
}

fn run_worker(
    config: Config,
    model: ModelId,
    options: LoadOptions,
    name: Option<String>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2) // the work is on the engine's threads; these only wait and pass on
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(async {
        let stop = shutdown::on_signal().context("listening for signals")?;
        worker::run(config, model, options, name, stop).await.map_err(anyhow::Error::from)
    });
    // A batch that outlived the grace period must not outlive the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

fn run_embed(config: &Config, model: &ModelId, options: &LoadOptions) -> anyhow::Result<()> {
    let started = Instant::now();
    let name = model;
    let (model, tokens_max) = worker::load(config, name, options)?;
    if model.info.task != ModelTask::Embed {
        return Err(WorkerError::NoVectors { model: name.clone() }.into());
    }
    let load = started.elapsed();
    let limits = BatchLimits { tokens_max, items_max: config.worker.batch_items_max };
    let input = io::BufReader::new(io::stdin());
    let output = BufWriter::new(io::stdout().lock());
    let summary = command::run(model, load, limits, input, output)?;
    let line = serde_json::to_string(&summary).context("writing the summary")?;
    writeln!(io::stderr(), "{line}").context("writing the summary")
}

fn run_generate(
    config: &Config,
    model: &ModelId,
    options: &LoadOptions,
    settings: Settings,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let model = loading::load_generator(config, model, options)?;
    let load = started.elapsed();
    let input = io::BufReader::new(io::stdin());
    let output = BufWriter::new(io::stdout().lock());
    let summary = generate::command::run(model, load, settings, input, output)?;
    let line = serde_json::to_string(&summary).context("writing the summary")?;
    writeln!(io::stderr(), "{line}").context("writing the summary")
}
