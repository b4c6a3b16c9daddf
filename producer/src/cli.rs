//! The command line: global options, the subcommands, and running the one that was chosen.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use forebay_fabric::{Config, shutdown, telemetry};

use crate::{
    commands::{
        cancel, chat, check, dead, get, keys, models, pull, queues, submit, tenants, top, usage,
        wait, workers,
    },
    context::Context,
    error::{CommandError, CommandResult},
    output::Output,
};

/// Submit work to a Forebay fleet, wait for it, and watch the fleet.
#[derive(Parser)]
#[command(name = "forebay", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The configuration file; `forebay.toml` in this folder if there is one
    #[arg(long, value_name = "FILE", env = "FOREBAY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Print the effective configuration, secrets hidden, and end
    #[arg(long)]
    print_config: bool,
    /// Print JSON lines instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// Log to standard error as the configuration says, not only errors
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Settings come from the configuration file and from FOREBAY_* variables: FOREBAY_AMQP_URL, \
FOREBAY_REDIS_URL, FOREBAY_MODELS_DIR, or FOREBAY_BROKER__HEARTBEAT_S for heartbeat_s in [broker].

Ends with 0 for success, 2 for wrong usage, configuration or an invalid job, 1 for everything else.";

#[derive(Subcommand)]
enum Command {
    /// Submit texts as jobs: from the command line, a file or standard input
    Submit(submit::Args),
    /// Show the results of jobs
    Get(get::Args),
    /// Wait until jobs have results, and show them
    Wait(wait::Args),
    /// Ask for jobs to be cancelled
    Cancel(cancel::Args),
    /// Talk with a model that generates text
    Chat(chat::Args),
    /// List the models: configured, cached, served
    Models,
    /// Fetch configured models into the cache folder
    Pull(pull::Args),
    /// Load a model folder, print what was understood of it, and compare it with Python's libraries
    ///
    /// Where Python has sentence-transformers or transformers, vectors or scores of sample texts are compared. The
    /// output is made to be pasted into a bug report. Ends with 1 if they differ.
    Check(check::Args),
    /// List the workers that are alive
    Workers,
    /// List the queues and how full they are
    Queues,
    /// Watch the fleet live: queues, workers, rates, and why the autoscaler did what it did
    ///
    /// Shows what it can reach: without an autoscaler, Redis or RabbitMQ it says so and keeps trying. With
    /// --json it prints one line per frame.
    Top(top::Args),
    /// List dead letters, show them, replay their jobs, or drop them
    ///
    /// Dead letters are jobs that the broker gave up, and messages that are no jobs. They are kept for
    /// fourteen days. While one command browses them, no other command sees them.
    Dead(dead::Args),
    /// Create, list, show, change and delete the tenants of the gateway
    ///
    /// A tenant is who is billed and whose limits hold. It has any number of keys: see `forebay keys`.
    Tenants(tenants::Args),
    /// Create, list and revoke the API keys of the gateway
    Keys(keys::Args),
    /// Show what was used, and what that costs, by tenant, key, model, lane, price, day or hour
    ///
    /// Sums are of whole hours of UTC, and a few seconds late. They need Redis alone.
    Usage(usage::Args),
}

pub(crate) async fn run(cli: Cli) -> CommandResult {
    forebay_fabric::install_crypto();
    let loaded = Config::load(cli.config.as_deref())?;
    let mut output = Output::new(cli.json);
    if cli.print_config {
        return Ok(output.line(loaded.config.to_toml().trim_end())?);
    }
    let Some(command) = cli.command else {
        return Err(CommandError::Usage(
            "no command was given; `forebay --help` lists the commands".into(),
        ));
    };
    // Log lines would appear in the middle of the screen, and `top` shows errors itself.
    let quiet = if matches!(command, Command::Top(_)) { "off" } else { "error,lapin=off" };
    init_logs(&loaded.config, (!cli.verbose).then_some(quiet))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let stop = shutdown::on_signal().map_err(|e| CommandError::Failed(e.to_string()))?;
    let mut context = Context { config: loaded.config, output, stop };
    match command {
        Command::Submit(args) => submit::run(args, &mut context).await,
        Command::Get(args) => get::run(args, &mut context).await,
        Command::Wait(args) => wait::run(args, &mut context).await,
        Command::Cancel(args) => cancel::run(args, &mut context).await,
        Command::Chat(args) => chat::run(args, &mut context).await,
        Command::Models => models::run(&mut context).await,
        Command::Pull(args) => pull::run(args, &mut context).await,
        Command::Check(args) => check::run(args, &mut context).await,
        Command::Workers => workers::run(&mut context).await,
        Command::Queues => queues::run(&mut context).await,
        Command::Top(args) => top::run(args, &mut context).await,
        Command::Dead(args) => dead::run(args, &mut context).await,
        Command::Tenants(args) => tenants::run(args, &mut context).await,
        Command::Keys(args) => keys::run(args, &mut context).await,
        Command::Usage(args) => usage::run(args, &mut context).await,
    }
}

/// Starts logging, with the filter `quiet` in place of the configured one if there is one. By default only errors are
/// logged, and none of the AMQP library's: it logs every check whether a queue exists as an error.
fn init_logs(config: &Config, quiet: Option<&str>) -> CommandResult {
    let mut telemetry = config.telemetry.clone();
    if let Some(filter) = quiet {
        filter.clone_into(&mut telemetry.log_filter);
    }
    telemetry::init_logs(&telemetry).map_err(|error| CommandError::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
