//! Every small text that people write: model sources, durations, ids, lines of input. Any text is read, or refused
//! by an error.
//!
//! The first byte says which of them it is.
#![no_main]
// Of the command's own files only the parsers are used.
#![allow(dead_code, unreachable_pub)]

#[path = "../../producer/src/commands/duration.rs"]
mod duration;
#[path = "../../producer/src/commands/ids.rs"]
mod ids;
#[path = "../../producer/src/commands/input.rs"]
mod input;

use forebay_producer::pull::Source;
use forebay_schemas::{JobId, ModelId};
use libfuzzer_sys::fuzz_target;

/// Stands in for the command's own error, which the files above import.
mod error {
    #[derive(Debug)]
    pub(crate) enum CommandError {
        Usage(String),
    }
}

const LINE_BYTES_MAX: usize = 256;

fn source(text: &str) {
    let (text, hash) =
        text.split_once('\n').map_or((text, None), |(text, hash)| (text, Some(hash)));
    if let Ok(source) = Source::parse(text, hash) {
        let written = source.to_string();
        assert_eq!(written.parse::<Source>().as_ref(), Ok(&source), "{written}");
        assert!(matches!(source, Source::Folder(_)) || !written.contains("/../"), "{written}");
    }
}

fn names(text: &str) {
    if let Ok(id) = text.parse::<JobId>() {
        assert!(id.as_str() == text && text.len() <= 64);
    }
    if let Ok(model) = text.parse::<ModelId>() {
        assert!(model.as_str() == text && text.len() <= 63 && !text.contains('/'));
    }
}

fn lines(text: &[u8], format: input::Format) {
    let mut reader = input::Reader::new("texts".into(), text, format, LINE_BYTES_MAX);
    while let Ok(Some(item)) = reader.next() {
        assert!(item.label.line >= 1 && item.text.len() <= LINE_BYTES_MAX);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    match kind % 6 {
        0 => source(text),
        1 => drop(duration::parse(text)),
        2 => names(text),
        3 => lines(rest, input::Format::Auto),
        4 => lines(rest, input::Format::Json),
        _ => drop(ids::read(rest)),
    }
});
