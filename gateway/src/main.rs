//! `forebay-gateway`: the HTTP endpoint in front of the fleet.
// Doc comments on arguments are help texts: no markup.
#![allow(clippy::doc_markdown)]

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use forebay_fabric::{
    Config, broker::BrokerError, config::ConfigError, store::StoreError, telemetry,
};
use forebay_gateway::{http, service};

/// Serves the fleet over HTTP: the requests of OpenAI's, Cohere's, Jina's, Voyage's and Hugging Face's clients become
/// jobs of the interactive lane, and native jobs can be submitted, awaited and cancelled.
///
/// Listens on gateway.listen. Stops on SIGTERM: takes no more connections and finishes what runs within
/// gateway.grace_s.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration; without it, forebay.toml if there is one.
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration, secrets hidden, and exit.
    #[arg(long)]
    print_config: bool,
    /// Print the OpenAPI document of its endpoints, as GET /openapi.json answers it, and exit.
    #[arg(long)]
    print_openapi: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then there is nothing to write to.
            let error_line = forebay_fabric::with_causes(error.as_ref());
            let _ = writeln!(io::stderr(), "forebay-gateway: {error_line}");
            let wrong_setting = error.is::<ConfigError>()
                || error.downcast_ref::<StoreError>().is_some_and(StoreError::is_final)
                || error.downcast_ref::<BrokerError>().is_some_and(BrokerError::is_final);
            ExitCode::from(if wrong_setting { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.print_openapi {
        return writeln!(io::stdout(), "{:#}", http::document()).context("printing");
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
        .build()
        .context("starting the runtime")?;
    runtime.block_on(service::run(loaded.config))
}
