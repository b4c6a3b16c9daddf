//! A progress line on the terminal, cleared while output is printed.

use std::{cell::Cell, fmt::Display, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// A progress line on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether a cause of waiting has been printed, where no line can be shown.
    printed: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}  {prefix}");
        // A template that can't be read shows the plain spinner.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, printed: Cell::new(false) }
    }

    /// Sets the progress.
    pub(super) fn at(&self, text: impl Display) {
        self.bar.set_message(text.to_string());
    }

    /// Sets the cause of waiting, if there is one. Without a terminal only the first is printed: causes may come and go
    /// very often.
    pub(super) fn waits(&self, for_what: Option<impl Display>) {
        match for_what {
            None => self.bar.set_prefix(String::new()),
            Some(what) if !self.bar.is_hidden() => self.bar.set_prefix(what.to_string()),
            Some(what) if !self.printed.replace(true) => eprintln!("forebay: {what}"),
            Some(_) => {}
        }
    }

    /// Runs `print` while the line is cleared.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
