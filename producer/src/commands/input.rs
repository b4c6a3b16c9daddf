//! Texts from the command line, a file or standard input: as lines, or as JSON lines `{"id", "text"}`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::CommandError;

/// One text and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) label: Label,
    pub(super) text: String,
}

/// The label by which the output names a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Label {
    /// Its line, or its position on the command line, from 1.
    pub(super) line: usize,
    /// The `id` beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
}

/// The format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// JSON lines if the first line is one, else plain lines
    Auto,
    /// Each line is a text
    Lines,
    /// Each line is `{"id": ..., "text": ...}`, the id optional
    Json,
}

/// Texts read ahead of what is submitted.
const READ_AHEAD: usize = 256;

/// The texts of the command line.
pub(super) fn given(texts: Vec<String>) -> impl Stream<Item = Result<Item, CommandError>> {
    let items = (1..).zip(texts);
    stream::iter(items.map(|(line, text)| Ok(Item { label: Label { line, id: None }, text })))
}

/// The texts of a file, or of standard input, read on a thread of their own.
pub(super) fn lines(
    file: Option<&Path>,
    format: Format,
    bytes_max: usize,
) -> Result<impl Stream<Item = Result<Item, CommandError>> + use<>, CommandError> {
    let (name, from): (String, Box<dyn Read + Send>) = match file {
        None => ("standard input".into(), Box::new(io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path)
                .map_err(|error| CommandError::Usage(format!("can't read {name}: {error}")))?;
            (name, Box::new(file))
        }
    };
    let (to, items) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(name, BufReader::new(from), format, bytes_max);
        while let Some(item) = reader.next().transpose() {
            let last = item.is_err();
            // The receiver is gone once the command ends.
            if to.blocking_send(item).is_err() || last {
                return;
            }
        }
    });
    Ok(stream::unfold(items, |mut items| async { items.recv().await.map(|item| (item, items)) }))
}

/// Reads texts one by one from lines.
pub(super) struct Reader<R> {
    name: String,
    from: R,
    format: Format,
    bytes_max: usize,
    line: usize,
}

impl<R: BufRead> Reader<R> {
    /// A reader of lines of at most `bytes_max`; `name` is for messages.
    pub(super) fn new(name: String, from: R, format: Format, bytes_max: usize) -> Self {
        Self { name, from, format, bytes_max, line: 0 }
    }

    /// The next text; blank lines are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Item>, CommandError> {
        loop {
            let mut bytes = Vec::new();
            let longest = self.bytes_max as u64 + 1;
            let mut limited = (&mut self.from).take(longest);
            let read = limited.read_until(b'\n', &mut bytes);
            self.line += 1;
            match read {
                Ok(0) => return Ok(None),
                Ok(n) if n as u64 == longest => {
                    return Err(self.wrong(format!("longer than {} bytes", self.bytes_max)));
                }
                Ok(_) => {}
                Err(error) => return Err(self.wrong(error)),
            }
            let text = String::from_utf8(bytes).map_err(|_| self.wrong("not UTF-8"))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() {
                return self.item(text).map(Some);
            }
        }
    }

    fn item(&mut self, text: &str) -> Result<Item, CommandError> {
        if self.format == Format::Auto {
            let json = serde_json::from_str::<JsonLine>(text).is_ok();
            self.format = if json { Format::Json } else { Format::Lines };
        }
        let line = self.line;
        if self.format == Format::Lines {
            return Ok(Item { label: Label { line, id: None }, text: text.to_owned() });
        }
        let parsed: JsonLine = serde_json::from_str(text).map_err(|error| {
            self.wrong(format!("{error}; write {{\"id\": \"...\", \"text\": \"...\"}}"))
        })?;
        Ok(Item { label: Label { line, id: parsed.id.map(Id::into_text) }, text: parsed.text })
    }

    fn wrong(&self, what: impl std::fmt::Display) -> CommandError {
        CommandError::Usage(format!("{}, line {}: {what}", self.name, self.line))
    }
}

#[derive(Deserialize)]
struct JsonLine {
    id: Option<Id>,
    text: String,
}

/// Ids of other systems are numbers as often as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

impl Id {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &[u8], format: Format) -> Result<Vec<Item>, CommandError> {
        let name = "texts".to_owned();
        let mut reader = Reader::new(name, text, format, 64);
        let mut items = Vec::new();
        while let Some(item) = reader.next()? {
            items.push(item);
        }
        Ok(items)
    }

    fn item(line: usize, id: Option<&str>, text: &str) -> Item {
        Item { label: Label { line, id: id.map(Into::into) }, text: text.into() }
    }

    #[test]
    fn plain_lines_keep_their_numbers_over_blank_ones() {
        let items = read(b"one\r\n\n  \n{two}", Format::Auto).unwrap();
        assert_eq!(items, [item(1, None, "one"), item(4, None, "{two}")]);
    }

    #[test]
    fn json_lines_are_recognised_and_may_have_ids() {
        let text = b"{\"id\":\"a\",\"text\":\"one\"}\n{\"text\":\"two\"}\n{\"id\":7,\"text\":\"\"}";
        let items = read(text, Format::Auto).unwrap();
        assert_eq!(
            items,
            [item(1, Some("a"), "one"), item(2, None, "two"), item(3, Some("7"), "")]
        );
    }

    #[test]
    fn json_may_be_taken_as_plain_text() {
        let items = read(b"{\"text\":\"one\"}", Format::Lines).unwrap();
        assert_eq!(items, [item(1, None, "{\"text\":\"one\"}")]);
    }

    #[test]
    fn mistakes_are_reported_with_file_and_line() {
        for (text, what) in [
            (&b"{\"text\":\"one\"}\n{\"txt\":1}"[..], "texts, line 2: missing field `text`"),
            (b"one\n\xff\n", "texts, line 2: not UTF-8"),
            (&[b'x'; 100], "texts, line 1: longer than 64 bytes"),
        ] {
            let error = read(text, Format::Auto).unwrap_err();
            assert!(error.to_string().starts_with(what), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
