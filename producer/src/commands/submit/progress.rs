//! A line on the terminal that counts, out of the way of what is printed.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::grouped;

/// Shows itself on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    word: &'static str,
}

impl Progress {
    pub(super) fn new(word: &'static str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        // A template that can't be read shows the plain spinner.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, word }
    }

    pub(super) fn at(&self, jobs: usize, texts: usize) {
        let (jobs, texts) = (grouped(jobs as u64), grouped(texts as u64));
        self.bar.set_message(format!("{jobs} jobs, {texts} texts {}", self.word));
    }

    /// Prints something while the line is out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
