//! Pulls from a folder on this machine: the needed files are copied, so that a later change to the original
//! can't affect a running worker.

use std::{
    fs::{self, File},
    path::Path,
};

use super::{
    error::{At, PullError},
    event::{Event, OnEvent},
    layout,
    manifest::{FileEntry, digest},
    stage::Stage,
};

/// Copies the needed files of the model in `folder`.
pub(super) fn gather(
    folder: &Path,
    stage: &Stage,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<FileEntry>, PullError> {
    let names = names(folder)?;
    let chosen = layout::select(names.iter().map(String::as_str));
    if let Some(file) = layout::missing(&chosen) {
        return Err(PullError::Lacking { origin: folder.display().to_string(), file });
    }
    let mut files = Vec::with_capacity(chosen.len());
    for path in chosen {
        let from = folder.join(path);
        let to = stage.file_path(path)?;
        fs::copy(&from, &to).at("copy", &from)?;
        let (size, sha256) = digest(File::open(&to).at("open", &to)?).at("read", &to)?;
        on_event(Event::Finished { file: path, bytes: size });
        files.push(FileEntry { path: path.to_owned(), size, sha256 });
    }
    Ok(files)
}

/// Files at the root and one level below, as `a` and `a/b`; links are followed, as the hub's own
/// cache is made of them.
fn names(folder: &Path) -> Result<Vec<String>, PullError> {
    let mut names = Vec::new();
    for name in children(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            names.extend(children(&path)?.into_iter().map(|child| format!("{name}/{child}")));
        } else {
            names.push(name);
        }
    }
    Ok(names)
}

fn children(folder: &Path) -> Result<Vec<String>, PullError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at("read the folder", folder)? {
        let entry = entry.at("read the folder", folder)?;
        // No needed file has a name that is not Unicode.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}
