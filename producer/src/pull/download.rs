//! One file over HTTP: into `<name>.part`, going on where an earlier attempt was cut, checked, and
//! renamed when it is whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use ureq::{Body, http::Response};

use super::{
    Event, FileEntry, OnEvent, PullError,
    error::At,
    http::{Http, Trouble, shown},
    manifest::{absorb, digest, hex},
};

/// The longest file of unannounced length: some sixteen times the largest shards in use.
const FILE_BYTES_MAX: u64 = 64 << 30;

/// A file and what is known about it beforehand.
pub(super) struct Wanted<'a> {
    /// Where it is.
    pub(super) url: &'a str,
    /// What it is called in the model's folder.
    pub(super) path: &'a str,
    /// Its length in bytes.
    pub(super) size: Option<u64>,
    /// Its hash. Without one a cut transfer starts over: nothing would tell a patchwork.
    pub(super) sha256: Option<&'a str>,
    /// Sent to `url`'s own server only.
    pub(super) token: Option<&'a SecretString>,
}

/// Brings the file to `to`.
pub(super) fn fetch(
    http: &Http,
    wanted: &Wanted<'_>,
    to: &Path,
    on_event: &mut OnEvent<'_>,
) -> Result<FileEntry, PullError> {
    on_event(Event::Started { file: wanted.path, bytes: wanted.size });
    let entry = if let Some(entry) = left_whole(wanted, to)? {
        entry
    } else {
        let part = part_of(to);
        let entry = http
            .patiently(wanted.url, on_event, |on_event| attempt(http, wanted, &part, on_event))?;
        fs::rename(&part, to).at("rename", &part)?;
        entry
    };
    on_event(Event::Finished { file: wanted.path, bytes: entry.size });
    Ok(entry)
}

fn part_of(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// The file as an earlier pull left it, if it has the hash that is wanted.
fn left_whole(wanted: &Wanted<'_>, to: &Path) -> Result<Option<FileEntry>, PullError> {
    let Some(sha256) = wanted.sha256 else { return Ok(None) };
    let file = match File::open(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("open", to)?,
    };
    let (size, found) = digest(file).at("read", to)?;
    Ok((found == sha256).then(|| entry(wanted, size, found)))
}

fn entry(wanted: &Wanted<'_>, size: u64, sha256: String) -> FileEntry {
    FileEntry { path: wanted.path.to_owned(), size, sha256 }
}

/// One request, and what it leaves in `part`.
fn attempt(
    http: &Http,
    wanted: &Wanted<'_>,
    part: &Path,
    on_event: &mut OnEvent<'_>,
) -> Result<FileEntry, Trouble> {
    let mut half = Half::open(part, wanted)?;
    let resumed = half.size > 0;
    if !resumed || wanted.size != Some(half.size) {
        let mut headers = Vec::new();
        if resumed {
            headers.push(("range", format!("bytes={}-", half.size)));
        }
        if let Some(token) = wanted.token {
            headers.push(("authorization", format!("Bearer {}", token.expose_secret())));
        }
        let response = http.get(wanted.url, &headers)?;
        receive(&mut half, wanted, response, on_event)?;
    }
    half.finish(wanted, resumed)
}

/// Reads the body of `response` onto the end of `half`.
fn receive(
    half: &mut Half<'_>,
    wanted: &Wanted<'_>,
    mut response: Response<Body>,
    on_event: &mut OnEvent<'_>,
) -> Result<(), Trouble> {
    match response.status().as_u16() {
        206 if range_start(&response) == Some(half.size) => {}
        206 | 416 => {
            half.start_over()?;
            return Err(Trouble::passing("the server can't go on where the transfer was cut"));
        }
        // All of it, though only the rest was asked for.
        _ => half.start_over()?,
    }
    let announced = response.body().content_length().map(|rest| half.size + rest);
    let size = wanted.size.or(announced);
    let bytes_max = size.unwrap_or(FILE_BYTES_MAX);
    // One byte more than it may have shows a body that is too long.
    let mut body = response
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .reader()
        .take((bytes_max - half.size.min(bytes_max)).saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => half.append(&buffer[..n])?,
            Err(error) => return Err(Trouble::passing(error)),
        }
        on_event(Event::At { bytes: half.size });
    }
    match size {
        Some(size) if half.size < size => {
            Err(Trouble::passing(format!("the body ended after {} of {size} bytes", half.size)))
        }
        _ if half.size > bytes_max => {
            let (expected, got) = (bytes_max.to_string(), format!("over {bytes_max}"));
            Err(half.reject(wanted, "size", expected, got)?)
        }
        _ => Ok(()),
    }
}

/// Where a partial answer begins: `Content-Range: bytes <start>-<end>/<size>`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The part of a file that is there, with its running hash.
struct Half<'a> {
    path: &'a Path,
    file: File,
    hasher: Sha256,
    size: u64,
}

impl<'a> Half<'a> {
    /// What an earlier attempt left, or nothing where that can't be checked at the end.
    fn open(path: &'a Path, wanted: &Wanted<'_>) -> Result<Self, PullError> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(wanted.sha256.is_none())
            .open(path)
            .at("open", path)?;
        let mut hasher = Sha256::new();
        let size = absorb(&mut hasher, &mut file).at("read", path)?;
        let mut half = Self { path, file, hasher, size };
        if wanted.size.is_some_and(|whole| size > whole) {
            half.start_over()?;
        }
        Ok(half)
    }

    fn start_over(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).at("empty", self.path)?;
        self.hasher = Sha256::new();
        self.size = 0;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file.write_all(bytes).at("write", self.path)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Deletes the file: it is wrong and will not get better.
    fn reject(
        &self,
        wanted: &Wanted<'_>,
        what: &'static str,
        expected: String,
        got: String,
    ) -> Result<Trouble, PullError> {
        fs::remove_file(self.path).at("remove", self.path)?;
        let file = format!("{} from {}", wanted.path, shown(wanted.url));
        Ok(Trouble::Lasting(PullError::Mismatch { file, what, expected, got }))
    }

    fn finish(mut self, wanted: &Wanted<'_>, resumed: bool) -> Result<FileEntry, Trouble> {
        let found = hex(&self.hasher);
        match wanted.sha256 {
            Some(sha256) if sha256 != found && resumed => {
                // The part may have been of another version, or of a cut disk write.
                self.start_over()?;
                Err(Trouble::passing("the two halves of the file don't fit together"))
            }
            Some(sha256) if sha256 != found => {
                Err(self.reject(wanted, "sha256", sha256.to_owned(), found)?)
            }
            _ => Ok(entry(wanted, self.size, found)),
        }
    }
}
