//! Downloads one file over HTTP: into `<name>.part`, resuming where an earlier attempt was cut, checked, and
//! renamed when it is complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use ureq::{Body, http::Response};

use super::{
    error::{At, PullError},
    event::{Event, OnEvent},
    http::{Http, Trouble, shown},
    manifest::{FileEntry, absorb, digest, hex},
};

/// The longest file of unannounced length: some sixteen times the largest shards in use.
const FILE_BYTES_MAX: u64 = 64 << 30;

/// A file to download, with its expected size and hash where they are known.
pub(super) struct Wanted<'a> {
    /// Its address.
    pub(super) url: &'a str,
    /// Its path in the model's folder.
    pub(super) path: &'a str,
    /// Its length in bytes.
    pub(super) size: Option<u64>,
    /// Its SHA-256 in hex. Without one a cut transfer starts over: a mixture of two versions would go unnoticed.
    pub(super) sha256: Option<&'a str>,
    /// A bearer token, sent to `url`'s own server only.
    pub(super) token: Option<&'a SecretString>,
}

/// Downloads the file to `to`, unless an earlier pull left it there complete.
pub(super) fn fetch(
    http: &Http,
    wanted: &Wanted<'_>,
    to: &Path,
    on_event: &mut OnEvent<'_>,
) -> Result<FileEntry, PullError> {
    on_event(Event::Started { file: wanted.path, bytes: wanted.size });
    let entry = if let Some(entry) = left_complete(wanted, to)? {
        entry
    } else {
        let part = part_of(to);
        let entry =
            http.retrying(wanted.url, on_event, |on_event| attempt(http, wanted, &part, on_event))?;
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

/// The file left by an earlier pull, if it has the expected hash.
fn left_complete(wanted: &Wanted<'_>, to: &Path) -> Result<Option<FileEntry>, PullError> {
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

/// One request, whose body is appended to `part`.
fn attempt(
    http: &Http,
    wanted: &Wanted<'_>,
    part: &Path,
    on_event: &mut OnEvent<'_>,
) -> Result<FileEntry, Trouble> {
    let mut partial = Partial::open(part, wanted)?;
    let resumed = partial.size > 0;
    if !resumed || wanted.size != Some(partial.size) {
        let mut headers = Vec::new();
        if resumed {
            headers.push(("range", format!("bytes={}-", partial.size)));
        }
        if let Some(token) = wanted.token {
            headers.push(("authorization", format!("Bearer {}", token.expose_secret())));
        }
        let response = http.get(wanted.url, &headers)?;
        receive(&mut partial, wanted, response, on_event)?;
    }
    partial.finish(wanted, resumed)
}

/// Reads the body of `response` onto the end of `partial`.
fn receive(
    partial: &mut Partial<'_>,
    wanted: &Wanted<'_>,
    mut response: Response<Body>,
    on_event: &mut OnEvent<'_>,
) -> Result<(), Trouble> {
    match response.status().as_u16() {
        206 if range_start(&response) == Some(partial.size) => {}
        206 | 416 => {
            partial.start_over()?;
            return Err(Trouble::passing("the server can't go on where the transfer was cut"));
        }
        // The whole file, although only the rest was requested.
        _ => partial.start_over()?,
    }
    let announced = response.body().content_length().map(|rest| partial.size + rest);
    let size = wanted.size.or(announced);
    let bytes_max = size.unwrap_or(FILE_BYTES_MAX);
    // Reading one byte more than the limit detects a body that is too long.
    let mut body = response
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .reader()
        .take((bytes_max - partial.size.min(bytes_max)).saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => partial.append(&buffer[..n])?,
            Err(error) => return Err(Trouble::passing(error)),
        }
        on_event(Event::At { bytes: partial.size });
    }
    match size {
        Some(size) if partial.size < size => {
            Err(Trouble::passing(format!("the body ended after {} of {size} bytes", partial.size)))
        }
        _ if partial.size > bytes_max => {
            let got = format!("over {bytes_max}");
            Err(partial.reject(wanted, "size", bytes_max.to_string(), got)?)
        }
        _ => Ok(()),
    }
}

/// The start of a partial response: `Content-Range: bytes <start>-<end>/<size>`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The downloaded part of a file, with its running hash.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    hasher: Sha256,
    size: u64,
}

impl<'a> Partial<'a> {
    /// Opens the part that an earlier attempt left. Without an expected hash it is emptied, because the result could
    /// not be checked at the end.
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
        let mut partial = Self { path, file, hasher, size };
        if wanted.size.is_some_and(|whole| size > whole) {
            partial.start_over()?;
        }
        Ok(partial)
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

    /// Deletes the file, which is wrong and can't be repaired by resuming.
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
