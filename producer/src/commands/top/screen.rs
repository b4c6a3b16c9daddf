//! The terminal: switched to raw mode and an alternate screen, and restored however the command ends.

use std::io::{self, Stdout, Write};

use crossterm::{
    QueueableCommand,
    cursor::{Hide, MoveTo, Show},
    style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor},
    terminal::{
        BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
        EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode, size,
    },
};

use super::{
    line::{Line, Style},
    page::Page,
    view::View,
};

/// The size that is assumed where the terminal's is unknown.
const SIZE: (u16, u16) = (80, 24);

/// The terminal in raw mode.
pub(super) struct Screen {
    to: Stdout,
}

/// The width of standard output in columns, if it is a terminal.
pub(super) fn width() -> Option<usize> {
    use std::io::IsTerminal;
    let (columns, _) = size().ok().filter(|_| io::stdout().is_terminal())?;
    Some(columns.into())
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on dropping it restores the terminal, also after an error or a panic.
        let mut screen = Self { to: io::stdout() };
        screen.to.queue(EnterAlternateScreen)?.queue(DisableLineWrap)?.queue(Hide)?;
        screen.to.flush()?;
        Ok(screen)
    }

    /// Draws a view over the one before. It is written in one piece, and each line clears the rest of the old one, so
    /// that nothing flickers.
    pub(super) fn draw(&mut self, view: &View) -> io::Result<()> {
        let (columns, rows) = size().unwrap_or(SIZE);
        let page = Page { width: Some(columns.into()), height: Some(rows.into()) };
        let mut frame = Vec::new();
        frame.queue(BeginSynchronizedUpdate)?;
        for (row, line) in (0..).zip(page.lines(view)) {
            frame.queue(MoveTo(0, row))?;
            write_line(&mut frame, &line)?;
            frame.queue(Clear(ClearType::UntilNewLine))?;
            if row + 1 == rows {
                break;
            }
        }
        frame.queue(Clear(ClearType::FromCursorDown))?.queue(EndSynchronizedUpdate)?;
        self.to.write_all(&frame)?;
        self.to.flush()
    }

    fn restore(&mut self) -> io::Result<()> {
        self.to.queue(Show)?.queue(EnableLineWrap)?.queue(LeaveAlternateScreen)?;
        self.to.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that was closed can't be restored.
        let _ = self.restore();
        let _ = disable_raw_mode();
    }
}

fn write_line(to: &mut impl Write, line: &Line) -> io::Result<()> {
    for cell in &line.0 {
        match cell.style {
            Style::Plain => {}
            Style::Dim => drop(to.queue(SetAttribute(Attribute::Dim))?),
            Style::Head => drop(to.queue(SetAttribute(Attribute::Bold))?),
            Style::Good => drop(to.queue(SetForegroundColor(Color::Green))?),
            Style::Warn => drop(to.queue(SetForegroundColor(Color::Yellow))?),
            Style::Bad => drop(to.queue(SetForegroundColor(Color::Red))?),
        }
        to.queue(Print(&cell.text))?;
        if cell.style != Style::Plain {
            to.queue(SetAttribute(Attribute::Reset))?.queue(ResetColor)?;
        }
    }
    Ok(())
}
