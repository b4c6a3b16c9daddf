//! `forebay dead`: its actions.

use clap::Subcommand;

use crate::{context::Context, error::CommandResult};

mod browse;
mod change;
mod list;
mod selection;
mod show;

use change::Change;
use selection::Selection;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List dead letters
    List(Selection),
    /// Show dead letters in full: headers, body, and the record of the job
    Show(Selection),
    /// Replay jobs: removes their records, unless they succeeded, and publishes them again
    ///
    /// Needs a selection of dead letters, or --all. Ends with 0 when every selected dead letter was
    /// replayed; one that can't be replayed is left, with the reason.
    Replay(change::Args),
    /// Drop dead letters for good; records stay
    ///
    /// Needs a selection of dead letters, or --all.
    Drop(change::Args),
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    match args.action {
        Action::List(selection) => list::run(selection, context).await,
        Action::Show(selection) => show::run(selection, context).await,
        Action::Replay(args) => change::run(Change::Replay, args, context).await,
        Action::Drop(args) => change::run(Change::Drop, args, context).await,
    }
}
