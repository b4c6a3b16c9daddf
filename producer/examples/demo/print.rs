//! Printed lines, and a live line that is overwritten as it changes.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Prints a line. A closed output is no error: the exit status is what counts.
pub(crate) fn print_line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The live line: rewritten on a terminal, elsewhere a new line every two seconds.
pub(crate) struct Live {
    terminal: bool,
    last: Option<Instant>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), last: None }
    }

    /// Whether it is time for an update.
    pub(crate) fn is_due(&self) -> bool {
        let every = Duration::from_millis(if self.terminal { 200 } else { 2_000 });
        self.last.is_none_or(|last| last.elapsed() >= every)
    }

    /// Updates the line.
    pub(crate) fn show(&mut self, text: &str) {
        self.last = Some(Instant::now());
        if self.terminal {
            let _ = write!(io::stdout(), "\r\x1b[2K{text}");
            let _ = io::stdout().flush();
        } else {
            print_line(text);
        }
    }

    /// Updates the line for the last time, and leaves it there.
    pub(crate) fn end(mut self, text: &str) {
        self.show(text);
        if self.terminal {
            print_line("");
        }
    }
}
