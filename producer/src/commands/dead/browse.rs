//! Browsing dead letters with a progress line.

use forebay_client::{DeadLetter, DeadLetters};

use super::{super::progress::Progress, selection::Selection};
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::grouped,
};

/// Browses dead letters without changing them.
pub(super) struct Browser {
    dead_letters: DeadLetters,
    pub(super) progress: Progress,
    limit: usize,
    found: usize,
}

impl Browser {
    /// Begins to browse. `limit` applies where the selection has none.
    pub(super) async fn begin(
        selection: Selection,
        limit: usize,
        context: &Context,
    ) -> Result<Self, CommandError> {
        let mut filter = selection.filter();
        let limit = *filter.limit.get_or_insert(limit);
        let client = context.client()?;
        let begin = async { Ok(client.dead_letters(filter).await?) };
        let dead_letters = unless_stopped(&context.stop, begin).await?;
        Ok(Self { dead_letters, progress: Progress::new(), limit, found: 0 })
    }

    /// The next dead letter; `None` after the last.
    pub(super) async fn next(
        &mut self,
        context: &Context,
    ) -> Result<Option<DeadLetter>, CommandError> {
        let left = grouped(self.dead_letters.left().into());
        self.progress.at(format_args!("{left} dead letters ahead"));
        let next = async { Ok(self.dead_letters.next().await?) };
        let dead = unless_stopped(&context.stop, next).await?;
        self.found += usize::from(dead.is_some());
        Ok(dead)
    }

    /// Returns the dead letters to their queue, and reports a limit that was reached and names that were not found.
    pub(super) async fn end(self) -> CommandResult {
        self.progress.end();
        let missing = missing(&self.dead_letters);
        if self.found == self.limit && self.dead_letters.left() > 0 {
            eprintln!("forebay: these are the first {}; --limit shows more", self.limit);
        }
        self.dead_letters.end().await?;
        if self.found == 0 && missing.is_ok() {
            eprintln!("forebay: {NONE}");
        }
        missing
    }
}

/// The message when nothing was selected.
pub(super) const NONE: &str = "no dead letters, or none that fit";

/// Fails if a dead letter was selected by name and was not found.
pub(super) fn missing(dead_letters: &DeadLetters) -> CommandResult {
    let missing = dead_letters.missing();
    let Some(first) = missing.first() else { return Ok(()) };
    let more = match missing.len() - 1 {
        0 => String::new(),
        more => format!(", nor for {more} more that were named"),
    };
    Err(CommandError::Failed(format!(
        "no dead letter for `{first}`{more}; `forebay dead list` shows what is there"
    )))
}
