//! The `forebay` command.

mod cli;
mod commands;
mod context;
mod error;
mod output;
mod queue_status;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use error::CommandError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(&CommandError::Failed(format!("can't start: {error}"))),
    };
    let result = runtime.block_on(cli::run(cli));
    // A download or a read from the terminal may still block a thread of the runtime: it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(&error),
    }
}

fn ended(error: &CommandError) -> ExitCode {
    // A reader that closed our output wants no error message either.
    if !error.is_broken_pipe() {
        eprintln!("forebay: {error}");
    }
    ExitCode::from(error.exit_code())
}
