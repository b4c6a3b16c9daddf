//! The subcommands, one file each; what they share is here.

mod cancel;
mod dead;
mod duration;
mod get;
mod ids;
mod input;
mod models;
mod progress;
mod pull;
mod queues;
mod show;
mod submit;
mod top;
mod wait;
mod workers;

use std::{io, path::PathBuf};

use clap::{Parser, Subcommand};
use forebay_fabric::{Config, config::ConfigError, shutdown, store::StoreError, telemetry};
use forebay_producer::{
    Client, ClientError, SubmitError, WaitError,
    pull::{PullError, SourceError},
};
use tokio_util::sync::CancellationToken;

use crate::output::Output;

/// Submit work to a Forebay fleet, wait for it, and see how the fleet fares.
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
    /// Log what happens underneath to standard error
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
    /// List the models: configured, cached, served
    Models,
    /// Bring configured models into the cache folder
    Pull(pull::Args),
    /// List the workers that are alive
    Workers,
    /// List the queues and how full they are
    Queues,
    /// Watch the fleet live: queues, workers, rates, and why the autoscaler did what it did
    ///
    /// Shows what it can: without an autoscaler, Redis or RabbitMQ it says so and goes on asking. With
    /// --json it prints a line a look.
    Top(top::Args),
    /// Look at dead letters, try their jobs anew, or drop them
    ///
    /// Dead letters are jobs that the broker gave up, and messages that are no jobs. They are kept for
    /// fourteen days. While a command looks through them, no other command sees them.
    Dead(dead::Args),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("[models.{model}] in the configuration: {error}")]
    ModelSource { model: String, error: SourceError },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error("can't write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("interrupted{0}")]
    Interrupted(String),
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// 2 for mistakes of the caller, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::ModelSource { .. }
            | Self::Source(_)
            | Self::Client(ClientError::Store(StoreError::Address { .. }))
            | Self::Submit(SubmitError::Invalid { .. } | SubmitError::UnknownModel { .. }) => 2,
            // A wrong address, login or queue argument: waiting does not mend it.
            Self::Submit(SubmitError::Broker(error)) | Self::Client(ClientError::Broker(error))
                if error.is_final() =>
            {
                2
            }
            _ => 1,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

type CommandResult = Result<(), CommandError>;

/// What every subcommand works with.
struct Context {
    config: Config,
    output: Output,
    /// Cancelled by Ctrl-C.
    stop: CancellationToken,
}

impl Context {
    fn client(&self) -> Result<Client, CommandError> {
        Ok(Client::connect(&self.config)?)
    }
}

pub(crate) async fn run(cli: Cli) -> CommandResult {
    forebay_fabric::install_crypto();
    let loaded = Config::load(cli.config.as_deref())?;
    let mut output = Output::new(cli.json);
    if cli.print_config {
        return Ok(output.line(loaded.config.to_toml().trim_end())?);
    }
    let Some(command) = cli.command else {
        return Err(CommandError::Usage("what is to be done? See `forebay --help`".into()));
    };
    // What is logged would stand in the middle of the screen, and `top` tells of trouble itself.
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
        Command::Models => models::run(&mut context).await,
        Command::Pull(args) => pull::run(args, &mut context).await,
        Command::Workers => workers::run(&mut context).await,
        Command::Queues => queues::run(&mut context).await,
        Command::Top(args) => top::run(args, &mut context).await,
        Command::Dead(args) => dead::run(args, &mut context).await,
    }
}

/// A command is quiet about what happens underneath unless it goes wrong: the AMQP library logs every
/// question whether a queue exists as an error.
fn init_logs(config: &Config, quiet: Option<&str>) -> CommandResult {
    let mut telemetry = config.telemetry.clone();
    if let Some(filter) = quiet {
        filter.clone_into(&mut telemetry.log_filter);
    }
    telemetry::init_logs(&telemetry).map_err(|error| CommandError::Usage(error.to_string()))
}

/// Does `work` unless Ctrl-C comes first.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let interrupted = || CommandError::Interrupted(String::new());
    stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(interrupted()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_caller_can_mend_ends_with_2_and_the_rest_with_1() {
        let usage = CommandError::Usage(String::new());
        let model = "m".parse().unwrap();
        let unknown = CommandError::Submit(SubmitError::UnknownModel { model, known: vec![] });
        assert_eq!((usage.exit_code(), unknown.exit_code()), (2, 2));
        let model = "m".parse().unwrap();
        let (lane, waited) = (forebay_producer::Lane::Batch, std::time::Duration::ZERO);
        let full = CommandError::Submit(SubmitError::QueueFull { model, lane, waited });
        assert_eq!((full.exit_code(), CommandError::Failed(String::new()).exit_code()), (1, 1));
    }
}
