//! The fields of log lines for people: one event is one line, whatever its fields contain.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{MakeVisitor, VisitFmt, VisitOutput},
    fmt::format::Writer,
};

/// Writes `message key=value ...` with control characters escaped. A publisher chooses some of the values: a line break
/// in one would begin a line that looks like an event of its own, and an escape sequence would rewrite a terminal.
pub(super) struct OneLine;

/// The visitor of [`OneLine`].
pub(super) struct Fields<'a> {
    writer: Writer<'a>,
    is_first: bool,
    result: fmt::Result,
}

impl<'a> MakeVisitor<Writer<'a>> for OneLine {
    type Visitor = Fields<'a>;

    fn make_visitor(&self, writer: Writer<'a>) -> Fields<'a> {
        Fields { writer, is_first: true, result: Ok(()) }
    }
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            if self.writer.has_ansi_escapes() {
                write!(self.writer, "\x1b[3m{}\x1b[0m\x1b[2m=\x1b[0m", field.name())?;
            } else {
                write!(self.writer, "{}=", field.name())?;
            }
        }
        write!(Escaped(&mut self.writer), "{value:?}")
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.write(field, value);
        }
    }
}

impl VisitOutput<fmt::Result> for Fields<'_> {
    fn finish(self) -> fmt::Result {
        self.result
    }
}

impl VisitFmt for Fields<'_> {
    fn writer(&mut self) -> &mut dyn Write {
        &mut self.writer
    }
}

/// Passes text on, with each character that is not to be seen as Rust writes it in a literal.
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unseen) {
            let (plain, after) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut after = after.chars();
            if let Some(unseen) = after.next() {
                write!(self.0, "{}", unseen.escape_default())?;
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Control characters, line and paragraph separators, and marks that change the direction of what follows.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
