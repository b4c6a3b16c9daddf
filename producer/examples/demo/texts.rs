//! The texts: JSON lines `{"id", "text"}`.

use std::{fs, io, path::Path};

use serde::Deserialize;

/// One text with its id.
#[derive(Deserialize)]
pub(crate) struct Text {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// Reads all texts of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Text>> {
    let lines = fs::read_to_string(path)?;
    lines.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}
