//! Words for people, and one line of them that is written over and over.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Prints a line. Nobody reading is no reason to fail: the exit status tells.
pub(crate) fn say(text: impl Display) {
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

    /// Whether it is time for another.
    pub(crate) fn is_due(&self) -> bool {
        let every = Duration::from_millis(if self.terminal { 200 } else { 2_000 });
        self.last.is_none_or(|last| last.elapsed() >= every)
    }

    pub(crate) fn show(&mut self, text: &str) {
        self.last = Some(Instant::now());
        if self.terminal {
            let _ = write!(io::stdout(), "\r\x1b[2K{text}");
            let _ = io::stdout().flush();
        } else {
            say(text);
        }
    }

    /// The last one stays.
    pub(crate) fn end(mut self, text: &str) {
        self.show(text);
        if self.terminal {
            say("");
        }
    }
}
