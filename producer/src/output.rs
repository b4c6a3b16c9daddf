//! Standard output, which is written here only: lines, tables, and JSON lines.

use std::{
    fmt::Display,
    io::{self, Stdout, Write},
};

use serde::Serialize;

/// Standard output, in the chosen format.
pub(crate) struct Output {
    /// JSON lines instead of tables.
    pub(crate) json: bool,
    to: Stdout,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, to: io::stdout() }
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.to, "{text}")
    }

    /// A piece of text within a line, at once.
    pub(crate) fn piece(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// One line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.to.write_all(&line)
    }

    /// A table under its heads; a column whose head ends in `>` is aligned to the right.
    pub(crate) fn table<const N: usize>(
        &mut self,
        heads: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        for line in table_lines(heads, rows) {
            self.line(line)?;
        }
        Ok(())
    }
}

fn table_lines<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let names = heads.map(|head| head.trim_end_matches('>').to_owned());
    let width = |text: &String| text.chars().count();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| width(&row[column]));
        cells.chain([width(&names[column])]).max().unwrap_or(0)
    });
    let line = |row: &[String; N]| {
        let cells: Vec<String> = (0..N)
            .map(|column| {
                let text = &row[column];
                let width = widths[column];
                let right = heads[column].ends_with('>');
                if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    [line(&names)].into_iter().chain(rows.iter().map(line)).collect()
}

/// Text from outside with its control characters escaped, so that it can't control the terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// `1,234,567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `90.9 MB`, `3.2 kB`
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// `12 s`, `3 min`, `5 h`, `2 d`
pub(crate) fn span(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ä".to_owned(), "7".to_owned()], ["longer".to_owned(), "1,000".to_owned()]];
        let lines = table_lines(["NAME", "COUNT>"], &rows);
        assert_eq!(lines, ["NAME    COUNT", "ä           7", "longer  1,000"]);
    }

    #[test]
    fn control_characters_from_outside_are_escaped() {
        assert_eq!(plain("ä\u{1b}[2J\n"), "ä\\u{1b}[2J\\n");
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(123_456_789), "123,456,789");
    }
}
