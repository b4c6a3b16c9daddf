//! `forebay dead replay` and `forebay dead drop`.

use std::pin::pin;

use forebay_client::{Client, DeadLetter, DeadLetterInfo, ReplayError};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use super::{
    super::progress::Progress,
    browse::{NONE, missing},
    selection::{Selection, job},
};
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::grouped,
};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The change to dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Replay,
    Drop,
}

impl Change {
    /// The word for a dead letter to which it was applied.
    fn done(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Replay, false) => "replayed",
            (Self::Drop, false) => "dropped",
            (Self::Replay, true) => "would be replayed",
            (Self::Drop, true) => "would be dropped",
        }
    }
}

/// Dead letters changed concurrently: enough to hide round trips of some milliseconds.
const AT_ONCE: usize = 16;

/// A dead letter after the change.
struct Changed {
    info: DeadLetterInfo,
    /// Why it was left in its queue, if it was.
    left: Option<String>,
    /// How many dead letters had not been browsed yet.
    ahead: u32,
}

pub(super) async fn run(change: Change, args: Args, context: &mut Context) -> CommandResult {
    let Args { selection, all, dry_run } = args;
    let filter = selection.filter();
    if !all && !filter.has_conditions() {
        return Err(CommandError::Usage(
            "which dead letters? Name them, select with --model, --reason, --older-than or \
             --newer-than, or say --all"
                .into(),
        ));
    }
    let client = context.client()?;
    let begin = async { Ok(client.dead_letters(filter).await?) };
    let mut dead_letters = unless_stopped(&context.stop, begin).await?;
    let stop = context.stop.clone();
    // Ctrl-C, and the first error, end browsing; changes that were begun are finished.
    let halt = stop.child_token();
    let chosen = stream::try_unfold(&mut dead_letters, |dead_letters| async move {
        let next = dead_letters.next().await?;
        Ok::<_, CommandError>(next.map(|dead| ((dead, dead_letters.left()), dead_letters)))
    });
    let chosen = chosen.take_until(halt.clone().cancelled_owned());
    let mut report = Report::new(change, dry_run, context);
    let changed = change_all(&client, change, dry_run, chosen);
    {
        let mut changed = pin!(changed);
        while let Some(one) = changed.next().await {
            if let Err(error) = one.and_then(|one| report.add(&one)) {
                report.first_error.get_or_insert(error);
                halt.cancel();
            }
        }
    }
    let missing = missing(&dead_letters);
    // After an error of the broker there is nothing to return: it has done that itself.
    let returned = dead_letters.end().await.map_err(CommandError::from);
    client.close().await;
    report.end(stop.is_cancelled())?;
    returned.and(missing)
}

fn change_all(
    client: &Client,
    change: Change,
    dry_run: bool,
    dead_letters: impl Stream<Item = Result<(DeadLetter, u32), CommandError>>,
) -> impl Stream<Item = Result<Changed, CommandError>> {
    let one = move |next: Result<(DeadLetter, u32), CommandError>| async move {
        let (dead, ahead) = next?;
        let info = dead.info.clone();
        let done = match (change, dry_run) {
            (Change::Replay, true) => client.can_replay(&dead).await,
            (Change::Replay, false) => client.replay(dead).await,
            (Change::Drop, true) => Ok(()),
            (Change::Drop, false) => client.discard(dead).await.map_err(ReplayError::from),
        };
        match done {
            Ok(()) => Ok(Changed { info, left: None, ahead }),
            Err(ReplayError::Kept(why)) => Ok(Changed { info, left: Some(why.to_string()), ahead }),
            Err(ReplayError::Client(error)) => Err(error.into()),
        }
    };
    dead_letters.map(one).buffered(AT_ONCE)
}

/// Prints the changes, and counts them for the last line.
struct Report<'a> {
    context: &'a mut Context,
    progress: Progress,
    change: Change,
    dry_run: bool,
    done: u64,
    left: u64,
    first_error: Option<CommandError>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    info: &'a DeadLetterInfo,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn new(change: Change, dry_run: bool, context: &'a mut Context) -> Self {
        let progress = Progress::new();
        Self { context, progress, change, dry_run, done: 0, left: 0, first_error: None }
    }

    fn add(&mut self, one: &Changed) -> CommandResult {
        let because = one.left.as_deref();
        match because {
            None => self.done += 1,
            Some(_) => self.left += 1,
        }
        self.progress.at(format_args!("{}, {} ahead", self.count(), grouped(one.ahead.into())));
        let result = match because {
            None => self.change.done(self.dry_run),
            Some(_) => "left",
        };
        let output = &mut self.context.output;
        self.progress.aside(|| {
            if output.json {
                return output.json_line(&Line { info: &one.info, result, because });
            }
            let why = because.map(|why| format!(": {why}")).unwrap_or_default();
            output.line(format_args!("{}  {}  {result}{why}", one.info.name, job(&one.info)))
        })?;
        Ok(())
    }

    /// The counts: `3 dead letters replayed, 1 left`.
    fn count(&self) -> String {
        let word = if self.done == 1 { "dead letter" } else { "dead letters" };
        let done = format!("{} {word} {}", grouped(self.done), self.change.done(self.dry_run));
        if self.left == 0 { done } else { format!("{done}, {} left", grouped(self.left)) }
    }

    fn end(self, interrupted: bool) -> CommandResult {
        self.progress.end();
        let count = self.count();
        match self.first_error {
            Some(error) if !error.is_broken_pipe() => {
                eprintln!("forebay: {count} before this:");
                Err(error)
            }
            Some(error) => Err(error),
            None if interrupted => Err(CommandError::Interrupted(format!(": {count}"))),
            None if self.left > 0 => Err(CommandError::Failed(count)),
            None => {
                eprintln!("forebay: {}", if self.done == 0 { NONE } else { &count });
                Ok(())
            }
        }
    }
}
