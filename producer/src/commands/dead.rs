//! `forebay dead`: what it is about, and which letters are meant.

use std::time::Duration;

use clap::Subcommand;
use forebay_fabric::death::{Reason, UnknownReason};
use forebay_producer::{DeadLetter, DeadLetters, JobId, LetterFilter, LetterInfo, ModelId};

use super::{CommandError, CommandResult, Context, duration, progress::Progress, unless_stopped};
use crate::output::{grouped, plain};

mod change;
mod list;
mod show;

use change::Change;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List dead letters
    List(Selection),
    /// Show dead letters whole: headers, body, and the record of the job
    Show(Selection),
    /// Try jobs anew: removes their records, unless they succeeded, and publishes them again
    ///
    /// Needs a choice of letters, or --all. Ends with 0 when every letter that was chosen was replayed;
    /// one that a replay would not help is left, with the reason.
    Replay(change::Args),
    /// Drop dead letters for good; records stay
    ///
    /// Needs a choice of letters, or --all.
    Drop(change::Args),
}

pub(super) async fn run(args: Args, context: &mut Context) -> CommandResult {
    match args.action {
        Action::List(selection) => list::run(selection, context).await,
        Action::Show(selection) => show::run(selection, context).await,
        Action::Replay(args) => change::run(Change::Replay, args, context).await,
        Action::Drop(args) => change::run(Change::Drop, args, context).await,
    }
}

/// Which letters are meant: those that fit everything that is given.
#[derive(clap::Args)]
#[group(id = "selection")]
struct Selection {
    /// Names of letters, or ids of their jobs
    #[arg(value_name = "LETTER")]
    letters: Vec<JobId>,
    /// The same as an option; may be repeated
    #[arg(long = "id", value_name = "LETTER")]
    ids: Vec<JobId>,
    /// Only of this model
    #[arg(long, short)]
    model: Option<ModelId>,
    /// Only dead for this reason
    #[arg(long, value_parser = parse_reason, help = reasons())]
    reason: Option<Reason>,
    /// Only dead for longer; leaves out those that don't say since when
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Only dead for less long; leaves out those that don't say since when
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    newer_than: Option<Duration>,
    /// No more than so many, from the head of their queue
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn reasons() -> String {
    format!(
        "Only dead for this reason: {}",
        Reason::NAMED.map(|reason| reason.to_string()).join(", ")
    )
}

fn parse_reason(text: &str) -> Result<Reason, UnknownReason> {
    text.parse()
}

impl Selection {
    fn filter(self) -> LetterFilter {
        LetterFilter {
            names: self.letters.into_iter().chain(self.ids).collect(),
            model: self.model,
            reason: self.reason,
            older_than: self.older_than,
            newer_than: self.newer_than,
            limit: self.limit,
        }
    }
}

/// A look through the letters, for those who only read.
struct Look {
    letters: DeadLetters,
    progress: Progress,
    limit: usize,
    found: usize,
}

impl Look {
    /// Begins it. Without a limit of the caller's own, `limit` holds.
    async fn begin(
        selection: Selection,
        limit: usize,
        context: &Context,
    ) -> Result<Self, CommandError> {
        let mut filter = selection.filter();
        let limit = *filter.limit.get_or_insert(limit);
        let client = context.client()?;
        let letters =
            unless_stopped(&context.stop, async { Ok(client.dead_letters(filter).await?) }).await?;
        Ok(Self { letters, progress: Progress::new(), limit, found: 0 })
    }

    async fn next(&mut self, context: &Context) -> Result<Option<DeadLetter>, CommandError> {
        self.progress.at(format_args!("{} letters ahead", grouped(self.letters.left().into())));
        let next = async { Ok(self.letters.next().await?) };
        let letter = unless_stopped(&context.stop, next).await?;
        self.found += usize::from(letter.is_some());
        Ok(letter)
    }

    /// Returns the letters and says what there is to say about the whole.
    async fn end(self) -> CommandResult {
        self.progress.end();
        let missing = missing(&self.letters);
        if self.found == self.limit && self.letters.left() > 0 {
            eprintln!("forebay: these are the first {}; --limit shows more", self.limit);
        }
        self.letters.end().await?;
        if self.found == 0 && missing.is_ok() {
            eprintln!("forebay: {NONE}");
        }
        missing
    }
}

const NONE: &str = "no dead letters, or none that fit";

/// Fails if a letter was asked for by name and is not there.
fn missing(letters: &DeadLetters) -> CommandResult {
    let missing = letters.missing();
    let Some(first) = missing.first() else { return Ok(()) };
    let more = match missing.len() - 1 {
        0 => String::new(),
        more => format!(", nor for {more} more that were named"),
    };
    Err(CommandError::Failed(format!(
        "no dead letter for `{first}`{more}; `forebay dead list` shows what is there"
    )))
}

/// The id of the job, or a dash.
fn job(info: &LetterInfo) -> &str {
    info.job.as_ref().map_or("-", JobId::as_str)
}

/// Model and lane, or what stands in their place.
fn addressee(info: &LetterInfo) -> [String; 2] {
    match (&info.model, info.lane) {
        (Some(model), Some(lane)) => [model.to_string(), lane.to_string()],
        _ => [plain(&info.routing_key), "-".to_owned()],
    }
}
