//! The file that is kept of each worker, so that the next autoscaler finds it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use forebay_fabric::clock;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::signal::Process;

/// How long a worker may take to be started after its file was written, in milliseconds.
const START_MS_MAX: u64 = 10_000;
/// The most files that are read.
const ENTRIES_MAX: usize = 10_000;

/// One worker, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The model that it runs.
    pub model: String,
    /// The device on which it computes.
    pub device: String,
    /// When it was launched, in Unix milliseconds.
    pub launched_at_ms: u64,
    /// Its process; unknown when the autoscaler was killed just as it started the worker.
    pub process: Option<Process>,
    /// Whether it was asked to drain.
    pub draining: bool,
}

/// The file of a worker.
pub fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// Removes a worker's file. One that can't be removed is found again, and removed then.
pub fn remove(folder: &Path, name: &str) {
    let _ = fs::remove_file(path(folder, name));
}

/// All workers with a file. A file that can't be read is skipped.
pub fn all(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            entries.extend(read(&file));
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn read(file: &Path) -> Option<Entry> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

impl Entry {
    /// Reads a worker's file.
    pub fn load(folder: &Path, name: &str) -> Option<Self> {
        read(&path(folder, name))
    }

    /// Writes its file, whole or not at all.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let file = path(folder, &self.name);
        let fresh = folder.join(format!("{}.new", self.name));
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, file)
    }

    /// Whether it runs. One whose process is not known is looked for by its name.
    pub fn lives(&mut self, folder: &Path) -> bool {
        if self.process.is_none() {
            self.process = Process::with_arguments(&["--name", &self.name]);
            if self.process.is_some() {
                // If that fails, the process is looked for again at the next look.
                let _ = self.save(folder);
            }
        }
        match self.process {
            Some(process) => process.lives(),
            None => clock::now_ms().saturating_sub(self.launched_at_ms) < START_MS_MAX,
        }
    }

    /// Sends it a signal, if it runs.
    pub fn send(mut self, folder: &Path, signal: Signal) -> io::Result<()> {
        let lives = self.lives(folder);
        self.process.filter(|_| lives).map_or(Ok(()), |process| process.send(signal))
    }
}
