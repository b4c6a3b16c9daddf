//! The logs of workers: a file each, rotated when it is long, removed when it is old.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The most logs that are kept of workers that ended.
const LOGS_MAX: usize = 32;
/// How much of the end of a log is read for its last line, in bytes.
const TAIL_BYTES: u64 = 2_000;
/// The longest last line that is reported, in characters.
const LINE_CHARS_MAX: usize = 300;

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// A worker's log. It is appended to, so that cutting it short moves what comes next to its beginning.
pub fn open(folder: &Path, name: &str) -> io::Result<File> {
    File::options().append(true).create(true).open(path(folder, name))
}

/// The last line that a worker has written.
pub fn last_line(folder: &Path, name: &str) -> Option<String> {
    let mut file = File::open(path(folder, name)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    let shown = line.trim().chars().filter(|c| !c.is_control());
    Some(shown.take(LINE_CHARS_MAX).collect())
}

/// Rotates each log that is longer than `bytes_max` to `.log.1`; removes the oldest of those whose worker is gone. A
/// step that fails is tried again the next time.
pub fn keep_short(folder: &Path, bytes_max: u64) {
    let Ok(files) = fs::read_dir(folder) else { return };
    let mut gone: Vec<(SystemTime, PathBuf)> = Vec::new();
    for file in files.filter_map(Result::ok).map(|file| file.path()) {
        let Some(name) = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".log"))
        else {
            continue;
        };
        let Ok(about) = file.metadata() else { continue };
        if about.len() > bytes_max && fs::copy(&file, with_suffix(&file)).is_ok() {
            let _ = File::options().write(true).open(&file).and_then(|log| log.set_len(0));
        }
        if !super::entry::path(folder, name).exists() {
            gone.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), file));
        }
    }
    gone.sort();
    for (_, log) in gone.iter().take(gone.len().saturating_sub(LOGS_MAX)) {
        let _ = fs::remove_file(with_suffix(log));
        let _ = fs::remove_file(log);
    }
}

fn with_suffix(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_rotated_while_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path(), "w").unwrap();
        log.write_all(&[b'x'; 2_000]).unwrap();
        keep_short(folder.path(), 1_000);
        log.write_all(b"again\n").unwrap();
        assert_eq!(fs::read(path(folder.path(), "w")).unwrap(), b"again\n");
        assert_eq!(fs::metadata(folder.path().join("w.log.1")).unwrap().len(), 2_000);
    }

    #[test]
    fn of_workers_that_are_gone_only_the_latest_logs_stay() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..LOGS_MAX + 5 {
            open(folder.path(), &format!("w{n}")).unwrap();
        }
        fs::write(super::super::entry::path(folder.path(), "w0"), "{}").unwrap();
        keep_short(folder.path(), 1_000);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), LOGS_MAX + 2);
        assert!(path(folder.path(), "w0").exists(), "the log of a running worker stays");
    }

    #[test]
    fn the_last_line_is_reported_without_what_a_terminal_would_obey() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path(), "w").unwrap();
        log.write_all(b"begins\n\x1b[2Jno such model\n\n").unwrap();
        assert_eq!(last_line(folder.path(), "w").as_deref(), Some("[2Jno such model"));
        assert_eq!(last_line(folder.path(), "v"), None);
    }
}
