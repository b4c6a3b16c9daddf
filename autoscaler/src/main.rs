//! `forebay-autoscaler`: the control plane. It settles what no worker will, and simulates how a fleet would scale.
// Doc comments on arguments are help texts: no markup.
#![allow(clippy::doc_markdown)]

mod settle;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use forebay_autoscaler::simulate::{self, SimulateArgs, SimulateError};
use forebay_fabric::{
    Broker, Config, Store,
    answer::Answerer,
    broker::BrokerError,
    clock::Clock,
    config::ConfigError,
    shutdown,
    store::StoreError,
    telemetry::{self, Health, Server},
};
use forebay_schemas::{
    names::{DEAD_SETTLE, UNROUTABLE},
    topology::Topology,
};
use settle::Settler;
use tokio_util::sync::CancellationToken;

/// Answers what no worker will: jobs for models that the fleet does not have, expired ones, and those
/// that died on their way. So every confirmed publish ends in a result.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration; without it, forebay.toml if there is one.
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration, secrets hidden, and exit.
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scaling policy, or a peer's, over a trace in virtual time: waits, costs, actions. Needs no service.
    Simulate(SimulateArgs),
}

/// Messages of one queue that are answered at once.
const PREFETCH: u16 = 64;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then nobody reads this either.
            let _ = writeln!(io::stderr(), "forebay-autoscaler: {error:#}");
            let wrong_setting = error.is::<ConfigError>()
                || error.is::<SimulateError>()
                || matches!(error.downcast_ref(), Some(StoreError::Address { .. }))
                || error.downcast_ref::<BrokerError>().is_some_and(BrokerError::is_final);
            ExitCode::from(if wrong_setting { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(Command::Simulate(asked)) = &arguments.command {
        return Ok(simulate::run(asked)?);
    }
    forebay_fabric::install_crypto();
    let loaded = Config::load(arguments.config.as_deref())?;
    if arguments.print_config {
        return write!(io::stdout(), "{}", loaded.config.to_toml()).context("printing");
    }
    telemetry::init_logs(&loaded.config.telemetry)?;
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(loaded.config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("listening for signals")?;
    let health = Health::new(&["broker", "store"]);
    let server =
        Server::start(config.telemetry.listen, telemetry::init_metrics()?, health.clone()).await?;
    let store = Arc::new(Store::new(&config)?);
    let background = CancellationToken::new();
    store.report_health(health.clone(), background.clone());
    let topology = Topology::new(config.models.keys(), &config.queues);
    let broker = Broker::start(&config, "forebay-autoscaler", topology)?;
    broker.report_health(health);
    if let Some(ready) = stop.run_until_cancelled(broker.ready()).await {
        ready?;
        let signature = format!("autoscaler-{}", std::process::id());
        let answerer = Answerer {
            signature,
            store,
            publisher: Arc::new(broker.clone()),
            attempts_max: config.worker.attempts_max,
            clock: Clock::default(),
        };
        let settle = |queue, how| {
            let subscription = broker.subscribe(queue, PREFETCH);
            Settler { answerer: answerer.clone(), limits: config.limits.clone(), how }
                .run(subscription, stop.clone())
        };
        tokio::join!(settle(UNROUTABLE, settle::unroutable), settle(DEAD_SETTLE, settle::dead));
    }
    broker.close().await;
    background.cancel();
    server.stop().await;
    Ok(())
}
