//! `GET /openapi.json` and `GET /docs`, which need no key, and the paths of the document, each with what its endpoint
//! says of itself.

use std::sync::LazyLock;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::{cohere, embeddings, events, generate, health, jobs, models, rerank, tei, usage};
use crate::document::{Document, Operation, Page, Tag};

/// The whole document. It has every path of the router; a test compares the two.
pub fn document() -> Value {
    let alive = health::described_alive;
    Document::default()
        .path("/v1/embeddings", [(Method::POST, embeddings::described())])
        .path("/v1/models", [(Method::GET, models::described_list())])
        .path("/v1/models/{*id}", [(Method::GET, models::described_one())])
        .path("/v1/chat/completions", [(Method::POST, generate::chat::described())])
        .path("/v1/completions", [(Method::POST, generate::completions::described())])
        .path("/v1/responses", [(Method::POST, generate::responses::described())])
        .path("/v1/embed", [(Method::POST, cohere::described("embedV1"))])
        .path("/v2/embed", [(Method::POST, cohere::described("embedV2"))])
        .path("/v1/rerank", [(Method::POST, rerank::described("rerankV1"))])
        .path("/v2/rerank", [(Method::POST, rerank::described("rerankV2"))])
        .path("/rerank", [(Method::POST, rerank::described_bare())])
        .path("/embed", [(Method::POST, tei::described_embed("embed"))])
        .path("/embed_sparse", [(Method::POST, tei::described_sparse())])
        .path("/predict", [(Method::POST, tei::described_predict())])
        .path("/", [(Method::POST, tei::described_embed("embedAtRoot"))])
        .path("/info", [(Method::GET, tei::described_info())])
        .path("/v1/jobs", [(Method::POST, jobs::described_create())])
        .path(
            "/v1/jobs/{id}",
            [(Method::GET, jobs::described_retrieve()), (Method::DELETE, jobs::described_cancel())],
        )
        .path("/v1/jobs/{id}/events", [(Method::GET, events::described())])
        .path("/v1/usage", [(Method::GET, usage::described())])
        .path("/health", [(Method::GET, alive("health"))])
        .path("/healthz", [(Method::GET, alive("healthz"))])
        .path("/readyz", [(Method::GET, health::described_ready())])
        .path("/openapi.json", [(Method::GET, described())])
        .path("/docs", [(Method::GET, described_page())])
        .written()
}

/// It is written once: it depends on nothing but this program.
static WRITTEN: LazyLock<Bytes> = LazyLock::new(|| format!("{}\n", document()).into());

/// `GET /openapi.json` in the document.
pub fn described() -> Operation {
    Operation::open("openapi", Tag::Service, "This document")
        .answers::<Map<String, Value>>(200, "An OpenAPI 3.1 document.")
}

/// The document.
pub async fn openapi() -> Response {
    let mut response = Response::new(Body::from(WRITTEN.clone()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The page, and the policy that goes with it.
static PAGE: LazyLock<(Bytes, Option<HeaderValue>)> = LazyLock::new(|| {
    let page = Page::of(&document());
    (page.html.into(), HeaderValue::try_from(page.policy).ok())
});

/// `GET /docs` in the document.
pub fn described_page() -> Operation {
    Operation::open("docs", Tag::Service, "This document as a page")
        .answers_text("text/html", "A page that loads nothing else.")
}

/// The page.
pub async fn page() -> Response {
    let (html, policy) = &*PAGE;
    let mut response = Response::new(Body::from(html.clone()));
    let headers = response.headers_mut();
    let policy = policy.clone().map(|policy| (header::CONTENT_SECURITY_POLICY, policy));
    let own = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    headers.extend(own.into_iter().chain(policy));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The text up to the parenthesis that closes more than was opened.
    fn until_closed(text: &str) -> &str {
        let mut depth = 0;
        let end = text.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth < 0
        });
        &text[..end.unwrap()]
    }

    /// The methods and paths that `routes.rs` has, by its text: a router does not list them.
    fn routed() -> BTreeSet<(String, String)> {
        let source: String = include_str!("../routes.rs").split_whitespace().collect();
        let mut found = BTreeSet::new();
        for route in source.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once("\",").unwrap();
            let handlers = until_closed(rest);
            for method in ["get", "post", "put", "patch", "delete"] {
                let handler = format!("{method}(");
                let is_whole = |(at, _): (usize, &str)| {
                    !handlers[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                };
                if handlers.match_indices(&handler).any(is_whole) {
                    found.insert((method.to_owned(), path.replace("{*", "{")));
                }
            }
        }
        found
    }

    #[test]
    fn the_document_has_every_path_of_the_router_and_no_other() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.clone(), path.clone()))
        });
        let routed = routed();
        assert!(routed.len() > 20, "{routed:?}");
        assert_eq!(described.collect::<BTreeSet<_>>(), routed);
    }

    #[test]
    fn each_operation_has_an_id_of_its_own_and_only_references_that_lead_somewhere() {
        let document = document();
        let mut ids = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                assert!(ids.insert(operation["operationId"].to_string()), "{operation}");
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{operation}");
            }
        }
        let text = document.to_string();
        let references =
            text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn the_parameters_of_each_path_are_those_that_it_names() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let resolved = |parameter: &Value| {
                    let reference =
                        parameter["$ref"].as_str().unwrap().trim_start_matches('#').to_owned();
                    document.pointer(&reference).unwrap().clone()
                };
                let parameters: Vec<Value> =
                    operation["parameters"].as_array().unwrap().iter().map(resolved).collect();
                let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
                let names: Vec<String> = in_path
                    .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                    .collect();
                let named: Vec<&str> =
                    path.split('/').filter(|part| part.starts_with('{')).collect();
                assert_eq!(names, named, "{path}");
            }
        }
    }
}
