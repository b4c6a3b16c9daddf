//! The page of the `OpenAPI` document: it has all of it, and loads nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use forebay_gateway::{document::Page, http::document};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[test]
fn the_page_has_every_operation_error_and_shape() {
    let document = document();
    let page = Page::of(&document).html;
    for (path, item) in map(&document["paths"]) {
        for (_, operation) in map(item) {
            let id = operation["operationId"].as_str().unwrap();
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{path}");
            assert_eq!(page.matches(&format!("href=\"#{id}\"")).count(), 1, "{path}");
        }
    }
    for (name, _) in map(&document["components"]["schemas"]) {
        assert_eq!(page.matches(&format!("id=\"shape-{name}\"")).count(), 1, "{name}");
    }
    assert!(page.contains("rate_limit_exceeded") && page.contains("encoding_format"));
}

#[test]
fn the_page_loads_nothing_and_its_links_lead_somewhere() {
    let Page { html, policy } = Page::of(&document());
    // The script looks links up by such a text.
    let (markup, _) = html.split_once("<script>").unwrap();
    for target in markup.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let is_here =
            target.strip_prefix('#').is_some_and(|id| html.contains(&format!("id=\"{id}\"")));
        assert!(is_here || ["data:,", "openapi.json"].contains(&target), "{target}");
    }
    for load in [" src=", "@import", "url(", "fetch(", "style=\"", " onclick"] {
        assert!(!html.contains(load), "{load}");
    }
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    let inline = |tag: &str| {
        let (_, rest) = html.split_once(&format!("<{tag}>")).unwrap();
        let text = rest.split_once(&format!("</{tag}>")).unwrap().0;
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
    };
    assert!(policy.contains(&inline("style")) && policy.contains(&inline("script")), "{policy}");
}

#[test]
fn what_a_document_says_is_text_and_not_markup() {
    let document = serde_json::json!({
        "info": {"title": "<script>alert(1)</script>", "version": "1", "description": "a `<b>` & \"c\""},
    });
    let page = Page::of(&document).html;
    assert_eq!(page.matches("<script>").count(), 1, "its own alone");
    assert!(page.contains("a <code>&lt;b&gt;</code> &amp; &quot;c&quot;"), "{page}");
}
