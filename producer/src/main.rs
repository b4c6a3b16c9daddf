//! `forebay`: the command for people.

mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;
use commands::{Cli, CommandError};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(&CommandError::Failed(format!("can't start: {error}"))),
    };
    let result = runtime.block_on(commands::run(cli));
    // A download or a read from the terminal may still block its thread: nobody waits for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(&error),
    }
}

fn ended(error: &CommandError) -> ExitCode {
    // Whoever closed our output wants no more words.
    if !error.is_broken_pipe() {
        eprintln!("forebay: {error}");
    }
    ExitCode::from(error.exit_code())
}
