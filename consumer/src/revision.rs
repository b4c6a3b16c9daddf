//! The revision of a model: a hash of its files. Workers with the same one compute with the same weights.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

/// The most files of a model folder, and how deep they lie: far more than any model has.
const FILES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 4;
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes of the hash that make a revision.
const BYTES: usize = 16;

/// The files of a model folder, as they were when this was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
    /// The path within the folder, the length and the time of the last change of each.
    entries: Vec<(PathBuf, u64, SystemTime)>,
}

impl Files {
    /// The files that are there now.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let mut entries = Vec::new();
        collect(folder, Path::new(""), DEPTH_MAX, &mut entries)?;
        entries.sort();
        Ok(Self { folder: folder.to_owned(), entries })
    }

    /// The hash of their names and contents. `None` if they have changed since: what was loaded may be either.
    pub fn revision(&self) -> io::Result<Option<String>> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        for (path, length, _) in &self.entries {
            // With their lengths: no two folders are one text.
            let name = path.as_os_str().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(length.to_le_bytes());
            let mut file = File::open(self.folder.join(path))?;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
            }
        }
        if Self::of(&self.folder)? != *self {
            return Ok(None);
        }
        let mut revision = String::new();
        for byte in &hash.finalize()[..BYTES] {
            // Writing to a text does not fail.
            let _ = write!(revision, "{byte:02x}");
        }
        Ok(Some(revision))
    }
}

fn collect(
    folder: &Path,
    within: &Path,
    depth: usize,
    entries: &mut Vec<(PathBuf, u64, SystemTime)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(within))? {
        let entry = entry?;
        let path = within.join(entry.file_name());
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Of what a link leads to.
        let metadata = fs::metadata(folder.join(&path))?;
        if metadata.is_dir() && depth > 0 {
            collect(folder, &path, depth - 1, entries)?;
        } else if metadata.is_file() {
            entries.push((path, metadata.len(), metadata.modified()?));
        }
        if entries.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(folder: &Path) -> String {
        Files::of(folder).unwrap().revision().unwrap().unwrap()
    }

    #[test]
    fn folders_of_equal_files_have_one_revision_and_any_change_makes_another() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for folder in [&one, &other] {
            fs::create_dir(folder.path().join("1_Pooling")).unwrap();
            fs::write(folder.path().join("1_Pooling/config.json"), "{}").unwrap();
            fs::write(folder.path().join("model.safetensors"), vec![7; 3_000_000]).unwrap();
        }
        let first = revision(one.path());
        assert_eq!(first.len(), 2 * BYTES);
        assert_eq!(first, revision(other.path()));
        fs::write(other.path().join(".lock"), "x").unwrap();
        assert_eq!(first, revision(other.path()), "hidden files are no part of a model");
        for (file, content) in [
            ("model.safetensors", "other weights"),
            ("1_Pooling/config.json", "{} "),
            ("added.json", ""),
        ] {
            let before = revision(other.path());
            fs::write(other.path().join(file), content).unwrap();
            assert_ne!(before, revision(other.path()), "{file}");
        }
    }

    #[test]
    fn files_that_change_while_a_model_is_loaded_have_no_revision() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), "weights").unwrap();
        let files = Files::of(folder.path()).unwrap();
        fs::write(folder.path().join("model.safetensors"), "longer weights").unwrap();
        assert_eq!(files.revision().unwrap(), None);
        fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        assert!(files.revision().is_err());
    }
}
