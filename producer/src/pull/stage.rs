//! The hidden folder in which a pull gathers its files, locked for one pull at a time, and the rename that
//! publishes them.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use forebay_schemas::ModelId;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    error::{At, PullError},
    event::{Event, OnEvent},
    manifest::Manifest,
    source::Source,
};

/// How long to wait for another pull of the same model: a large model over a slow line.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// The interval of attempts to lock.
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(100);

/// The staging folder of a model, locked by one pull.
///
/// Model ids never start with a dot, so its names meet no model's: `.<id>.lock`, and `.<id>.pull/`
/// with the source's name, a download and the model's files.
pub(super) struct Stage {
    root: PathBuf,
    target: PathBuf,
    /// Locked until it is closed, by the end of the process at the latest.
    _lock: File,
}

impl Stage {
    /// Locks the folder, waiting for another pull of the model. Files that an earlier pull from the same source left
    /// there are kept.
    pub(super) fn enter(
        models_folder: &Path,
        model: &ModelId,
        source: &Source,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Self, PullError> {
        fs::create_dir_all(models_folder).at("create", models_folder)?;
        let lock = lock(&models_folder.join(format!(".{model}.lock")), on_event)?;
        let root = models_folder.join(format!(".{model}.pull"));
        let target = models_folder.join(model.as_str());
        let stage = Self { root, target, _lock: lock };
        stage.prepare(&source.to_string())?;
        Ok(stage)
    }

    fn prepare(&self, source: &str) -> Result<(), PullError> {
        let label = self.root.join("source");
        if fs::read_to_string(&label).is_ok_and(|found| found == source) {
            return Ok(());
        }
        remove_folder(&self.root)?;
        fs::create_dir_all(self.files()).at("create", &self.root)?;
        fs::write(&label, source).at("write", &label)
    }

    fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The path for the model's file `path`; its folder is created.
    pub(super) fn file_path(&self, path: &str) -> Result<PathBuf, PullError> {
        let file = self.files().join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        Ok(file)
    }

    /// The path for a file that is not part of the model.
    pub(super) fn download(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes the manifest and renames the folder to the model's own. An older one is exchanged for it in one step, so
    /// that a worker that loads the model meanwhile finds one or the other.
    pub(super) fn publish(self, manifest: &Manifest) -> Result<(), PullError> {
        let files = self.files();
        prune(&files, "", manifest)?;
        manifest.write(&files).at("write the manifest in", &files)?;
        match exchange(&files, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename()?,
            Err(error) if can_t_exchange(&error) => {
                let old = self.root.join("old");
                remove_folder(&old)?;
                fs::rename(&self.target, &old).at("move away", &self.target)?;
                self.rename()?;
            }
            exchanged => exchanged.at("publish", &self.target)?,
        }
        self.leave()
    }

    fn rename(&self) -> Result<(), PullError> {
        fs::rename(self.files(), &self.target).at("publish", &self.target)
    }

    /// Removes the folder with everything in it, and unlocks it.
    pub(super) fn leave(self) -> Result<(), PullError> {
        remove_folder(&self.root)
    }
}

/// Gives two paths of one file system each other's name in one step.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Whether the file system lacks this call: some network file systems do.
fn can_t_exchange(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Removes files that an earlier pull left and that are not in the manifest.
fn prune(folder: &Path, prefix: &str, manifest: &Manifest) -> Result<(), PullError> {
    for entry in fs::read_dir(folder).at("read the folder", folder)? {
        let path = entry.at("read the folder", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            prune(&path, &format!("{name}/"), manifest)?;
        } else if !manifest.files.iter().any(|file| file.path == name) {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<(), PullError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", folder),
    }
}

fn lock(path: &Path, on_event: &mut OnEvent<'_>) -> Result<File, PullError> {
    let file = File::create(path).at("create", path)?;
    let since = Instant::now();
    let mut reported = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).at("lock", path),
            Err(TryLockError::WouldBlock) if since.elapsed() >= LOCK_WAIT_MAX => {
                let lock = path.display().to_string();
                return Err(PullError::Locked { lock, waited_s: since.elapsed().as_secs() });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !reported {
            on_event(Event::Waiting);
            reported = true;
        }
        thread::sleep(LOCK_RETRY_EVERY);
    }
}
