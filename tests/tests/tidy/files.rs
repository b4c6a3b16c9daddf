//! The files of the checkout as text, and how a check reports what it found in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use forebay_tests::binaries::checkout;

/// Folders that are built, fetched or run in, or copied from elsewhere: not written here.
const NOT_OURS: &[&str] =
    &["target", ".git", ".forebay", ".venv", "node_modules", "__pycache__", "corpus", "vendor"];

/// A file of the checkout, by its path there.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// Its extension, or that of its kind: a script without one is `sh` or `py`.
    pub fn kind(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let first = self.text.lines().next().unwrap_or_default();
        match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => extension,
            _ if first.starts_with("#!") => {
                if first.contains("python") {
                    "py"
                } else {
                    "sh"
                }
            }
            _ => name,
        }
    }

    /// The lines before the file's own tests, numbered from 1.
    pub fn lines_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        numbered.take_while(|(_, line)| *line != "#[cfg(test)]")
    }

    pub fn is_test(&self) -> bool {
        self.path.contains("tests/") || self.path.ends_with("tests.rs")
    }
}

/// The checkout that is checked: this one, or the one that `FOREBAY_TIDY_ROOT` names.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        std::env::var_os("FOREBAY_TIDY_ROOT").map_or_else(|| checkout().to_owned(), PathBuf::from)
    });
    &ROOT
}

/// Every text file that people write.
pub fn written() -> &'static [Source] {
    static FILES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let mut found = Vec::new();
        collect(root(), &mut found);
        found
    });
    &FILES
}

/// Those of one kind (see [`Source::kind`]), of which there must be some.
pub fn sources(kind: &str) -> Vec<&'static Source> {
    let found: Vec<&Source> = written().iter().filter(|source| source.kind() == kind).collect();
    assert!(!found.is_empty(), "no .{kind} files in {}", root().display());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            if !NOT_OURS.iter().any(|other| name == *other) {
                collect(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}

/// Fails with every offence at once, one a line.
pub fn assert_none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}
