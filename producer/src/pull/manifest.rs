//! The manifest of a model's folder. It is written last, so its presence means that the model is complete.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The manifest's name in the model's folder.
pub const MANIFEST: &str = "forebay-model.json";

/// The files of a complete model, and their source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The [`Source`](super::source::Source) as text.
    pub source: String,
    /// The hub's commit that the revision stood for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Every file except the manifest.
    pub files: Vec<FileEntry>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the model's folder, with `/`.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of the model in `folder`, if it is complete: every file is there with its size.
    pub fn of_complete(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(MANIFEST)).ok()?;
        let manifest: Self = serde_json::from_slice(&text).ok()?;
        let there = |entry: &FileEntry| {
            fs::metadata(folder.join(&entry.path)).is_ok_and(|meta| meta.len() == entry.size)
        };
        manifest.files.iter().all(there).then_some(manifest)
    }

    /// The total size of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.size).sum()
    }

    /// Writes the manifest into `folder`, and syncs it and its files to the disk.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        for entry in &self.files {
            File::open(folder.join(&entry.path))?.sync_all()?;
        }
        let mut file = File::create(folder.join(MANIFEST))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()
    }
}

/// Reads `reader` to its end. Returns its length in bytes and its SHA-256 in hex.
pub(super) fn digest(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let size = absorb(&mut hasher, &mut reader)?;
    Ok((size, hex(&hasher)))
}

/// Hashes `reader` to its end. Returns the number of bytes.
pub(super) fn absorb(hasher: &mut Sha256, reader: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(size),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// The digest so far, in lower-case hex.
pub(super) fn hex(hasher: &Sha256) -> String {
    let digest = hasher.clone().finalize();
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_complete_only_with_all_files_at_their_sizes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(Manifest::of_complete(folder.path()), None, "no manifest");

        let (size, sha256) = digest(&b"{}"[..]).unwrap();
        let files = vec![FileEntry { path: "config.json".into(), size, sha256 }];
        let manifest = Manifest { source: "folder:/x".into(), commit: None, files };
        manifest.write(folder.path()).unwrap();
        assert_eq!(Manifest::of_complete(folder.path()), Some(manifest));

        fs::write(folder.path().join("config.json"), "{").unwrap();
        assert_eq!(Manifest::of_complete(folder.path()), None, "a file was cut");
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let (size, sha256) = digest(&b"abc"[..]).unwrap();
        assert_eq!(size, 3);
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
