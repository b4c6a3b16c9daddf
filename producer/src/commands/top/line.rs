//! Lines of styled text whose width is known: cells, tables, bars.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Dim,
    Head,
    Good,
    Warn,
    Bad,
}

/// A piece of styled text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) style: Style,
    pub(super) text: String,
}

/// A line of pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<Cell>);

/// The gap between columns.
const GAP: &str = "  ";
const CUT: char = '…';

/// A cell with text of this program; for text from outside, see [`foreign`].
pub(super) fn cell(style: Style, text: impl Into<String>) -> Cell {
    Cell { style, text: text.into() }
}

/// Text from outside on one line, at most `width_max` columns wide: without control characters, and without characters
/// of zero width, which can hide or reverse the text beside them.
pub(super) fn foreign(text: &str, width_max: usize) -> String {
    let shown = |c: char| if c == '\n' || c == '\t' { ' ' } else { c };
    // Bounds the work on text that consists of invisible characters.
    let inspected = text.chars().take(width_max.saturating_mul(4)).map(shown);
    let plain: String = inspected.filter(|c| c.width().is_some_and(|width| width > 0)).collect();
    cut(&plain, width_max)
}

/// The beginning of `text` that fits, with an ellipsis if something is missing.
fn cut(text: &str, width_max: usize) -> String {
    if text.width() <= width_max {
        return text.to_owned();
    }
    let mut fits = String::new();
    let mut left = width_max.saturating_sub(1);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        fits.push(c);
    }
    if width_max > 0 {
        fits.push(CUT);
    }
    fits
}

impl Line {
    pub(super) fn of(style: Style, text: impl Into<String>) -> Self {
        Self(vec![cell(style, text)])
    }

    /// The text alone.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|cell| cell.text.as_str()).collect()
    }

    fn width(&self) -> usize {
        self.0.iter().map(|cell| cell.text.width()).sum()
    }

    /// The line as far as it fits.
    pub(super) fn fitted(self, width_max: usize) -> Self {
        if self.width() <= width_max {
            return self;
        }
        let mut left = width_max;
        let mut cells = Vec::new();
        for Cell { style, text } in self.0 {
            let width = text.width();
            // The cell that goes to the very edge is cut too when something comes after it.
            if width >= left {
                cells.push(cell(style, cut(&format!("{text}{CUT}"), left)));
                break;
            }
            left -= width;
            cells.push(Cell { style, text });
        }
        Self(cells)
    }
}

/// A table under its heads; a column whose head ends in `>` is aligned to the right.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: Vec<[Cell; N]>) -> Vec<Line> {
    let right: [bool; N] = heads.map(|head| head.ends_with('>'));
    let names = heads.map(|head| cell(Style::Head, head.trim_end_matches('>')));
    let rows: Vec<[Cell; N]> = [names].into_iter().chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].text.width()).max().unwrap_or(0)
    });
    let line = |row: [Cell; N]| {
        let mut cells = Vec::with_capacity(2 * N);
        for (column, Cell { style, text }) in row.into_iter().enumerate() {
            let space = " ".repeat(widths[column] - text.width());
            let gap = if column == 0 { "" } else { GAP };
            let last = column == N - 1;
            cells.push(match (right[column], last) {
                (true, _) => cell(style, format!("{gap}{space}{text}")),
                (false, true) => cell(style, format!("{gap}{text}")),
                (false, false) => cell(style, format!("{gap}{text}{space}")),
            });
        }
        Line(cells)
    };
    rows.into_iter().map(line).collect()
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last values as bars, the highest of them full; an unknown value is blank.
pub(super) fn bars(values: impl IntoIterator<Item = Option<u64>>, width: usize) -> String {
    let values: Vec<Option<u64>> = values.into_iter().collect();
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().flatten().max().copied().unwrap_or(0).max(1);
    let bar = |value: u64| {
        // Rounded up, so that every value above zero is visible.
        let level = (u128::from(value) * (BARS.len() as u128 - 1)).div_ceil(u128::from(highest));
        BARS[level as usize]
    };
    shown.iter().map(|value| value.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_controls_no_terminal_and_hides_nothing() {
        assert_eq!(foreign("a\u{1b}[2Jb\nc\u{202e}d\u{200b}\u{7f}", 40), "a[2Jb cd");
        assert_eq!(foreign("0123456789", 6), "01234…");
        assert_eq!(foreign("\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}x", 1), "");
        assert_eq!(foreign("x", 0), "");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(foreign("日本語", 5), "日本…");
        assert_eq!(foreign("日本語", 4), "日…");
        assert_eq!(foreign("日本語", 6), "日本語");
    }

    #[test]
    fn a_line_is_cut_where_its_width_ends() {
        let line = || Line(vec![cell(Style::Head, "abc"), cell(Style::Bad, "def")]);
        for (width, text) in
            [(7, "abcdef"), (6, "abcdef"), (5, "abcd…"), (3, "ab…"), (1, "…"), (0, "")]
        {
            assert_eq!(line().fitted(width).text(), text, "{width}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str, c: &str| [a, b, c].map(|text| cell(Style::Plain, text));
        let lines = table(["A", "B>", "C"], vec![row("日本", "7", "x"), row("b", "1000", "")]);
        let texts: Vec<String> = lines.iter().map(Line::text).collect();
        assert_eq!(texts, ["A        B  C", "日本     7  x", "b     1000  "]);
    }

    #[test]
    fn bars_show_the_last_values_beside_the_highest_of_them() {
        assert_eq!(bars([Some(0), Some(1), None, Some(7), Some(14)], 4), "▂ ▅█");
        assert_eq!(bars([Some(0), Some(0)], 4), "▁▁");
        assert_eq!(bars([Some(u64::MAX), Some(1)], 4), "█▂");
        assert_eq!(bars([], 4), "");
    }
}
