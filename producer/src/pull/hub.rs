//! Pulls from the Hugging Face hub: one request lists a repository's files with sizes and hashes, one more
//! fetches each.

use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{
    download::{Wanted, fetch},
    error::PullError,
    event::OnEvent,
    http::{Http, Remote, shown},
    layout,
    manifest::FileEntry,
    stage::Stage,
};

/// A repository as the hub describes it.
#[derive(Deserialize)]
struct Listing {
    /// The commit that the revision stands for.
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

/// Large files carry their SHA-256; for small ones the hub has only git's own hash.
#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

/// Fetches the needed files of `repository`. Returns them and the commit that they belong to.
pub(super) fn gather(
    http: &Http,
    remote: &Remote,
    repository: &str,
    revision: &str,
    stage: &Stage,
    on_event: &mut OnEvent<'_>,
) -> Result<(Vec<FileEntry>, Option<String>), PullError> {
    let listing = list(http, remote, repository, revision, on_event)?;
    let names = layout::select(listing.siblings.iter().map(|s| s.rfilename.as_str()));
    if let Some(file) = layout::missing(&names) {
        let origin = format!("{}/{repository} at {revision}", shown(&remote.hub_url));
        return Err(PullError::Lacking { origin, file });
    }
    let mut files = Vec::with_capacity(names.len());
    for sibling in listing.siblings.iter().filter(|s| names.contains(&s.rfilename.as_str())) {
        let path = sibling.rfilename.as_str();
        // By commit, so that a push in between can't mix two versions.
        let url = format!("{}/{repository}/resolve/{}/{path}", remote.hub_url, listing.sha);
        let wanted = Wanted {
            url: &url,
            path,
            size: sibling.lfs.as_ref().map(|lfs| lfs.size).or(sibling.size),
            sha256: sibling.lfs.as_ref().map(|lfs| lfs.sha256.as_str()),
            token: remote.hub_token.as_ref(),
        };
        files.push(fetch(http, &wanted, &stage.file_path(path)?, on_event)?);
    }
    Ok((files, Some(listing.sha)))
}

fn list(
    http: &Http,
    remote: &Remote,
    repository: &str,
    revision: &str,
    on_event: &mut OnEvent<'_>,
) -> Result<Listing, PullError> {
    // A slash in a revision is escaped, so that it does not separate path segments.
    let revision = revision.replace('/', "%2F");
    let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", remote.hub_url);
    let mut headers = Vec::new();
    if let Some(token) = &remote.hub_token {
        headers.push(("authorization", format!("Bearer {}", token.expose_secret())));
    }
    let text = http.text(&url, &headers, on_event)?;
    read(&text).map_err(|reason| PullError::Answer { url: shown(&url), reason })
}

fn read(json: &str) -> Result<Listing, String> {
    let listing: Listing = serde_json::from_str(json).map_err(|error| error.to_string())?;
    // The commit becomes part of the files' addresses.
    if listing.sha.is_empty() || !listing.sha.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("`{}` is not a commit", listing.sha));
    }
    Ok(listing)
}

/// The names of the files in a listing, for the targets in `fuzz/`.
#[cfg(fuzzing)]
pub(super) fn names(json: &str) -> Vec<String> {
    let siblings = read(json).map(|listing| listing.siblings).unwrap_or_default();
    siblings.into_iter().map(|sibling| sibling.rfilename).collect()
}
