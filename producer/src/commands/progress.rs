//! A line on the terminal that counts, out of the way of what is printed.

use std::{cell::Cell, fmt::Display, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows itself on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether a trouble has been told where no line can be shown.
    told: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}  {prefix}");
        // A template that can't be read shows the plain spinner.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, told: Cell::new(false) }
    }

    /// How far it is.
    pub(super) fn at(&self, text: impl Display) {
        self.bar.set_message(text.to_string());
    }

    /// What it waits for, if it does. Without a terminal the first is told, and no more: it may come and
    /// go very often.
    pub(super) fn waits(&self, for_what: Option<impl Display>) {
        match for_what {
            None => self.bar.set_prefix(String::new()),
            Some(what) if !self.bar.is_hidden() => self.bar.set_prefix(what.to_string()),
            Some(what) if !self.told.replace(true) => eprintln!("forebay: {what}"),
            Some(_) => {}
        }
    }

    /// Prints something while the line is out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
