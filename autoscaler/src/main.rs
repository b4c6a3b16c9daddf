//! `forebay-autoscaler`: the control plane.
// Doc comments on arguments are help texts: no markup.
#![allow(clippy::doc_markdown)]

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use forebay_autoscaler::{
    service,
    simulate::{self, SimulateArgs, SimulateError},
};
use forebay_fabric::{
    Config, broker::BrokerError, config::ConfigError, store::StoreError, telemetry,
};

/// Launches workers when there is work and drains them when there is none, and answers what no worker
/// will: jobs for models that the fleet does not have, expired ones, and those that died on their way.
///
/// Reads its configuration again when the file changes, or on SIGHUP. Stops on SIGTERM; workers that
/// are processes beside it finish and go with it, unless autoscaler.process.leave_on_stop.
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

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then there is nothing to write to.
            let error_line = forebay_fabric::with_causes(error.as_ref());
            let _ = writeln!(io::stderr(), "forebay-autoscaler: {error_line}");
            let wrong_setting = error.is::<ConfigError>()
                || error.is::<SimulateError>()
                || error.downcast_ref::<StoreError>().is_some_and(StoreError::is_final)
                || error.downcast_ref::<BrokerError>().is_some_and(BrokerError::is_final);
            ExitCode::from(if wrong_setting { 2 } else { 1 })
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
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
    runtime.block_on(service::run(loaded.config, arguments.config))
}
