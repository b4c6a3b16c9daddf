//! Every parser of a request's bytes, with what holds whatever comes: for the property tests and for `fuzz/`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use forebay_fabric::access::Credential;
use forebay_gateway::{
    cohere,
    error::ApiError,
    http::heads,
    native::{self, NativeJob},
    openai::{
        embeddings::EmbeddingsRequest,
        generate::{chat::ChatRequest, completions::CompletionRequest, responses::ResponseRequest},
    },
    rerank::{Path, RerankRequest},
    tei::{EmbedRequest, PredictRequest, SparseRequest},
};
use forebay_schemas::{JobId, Limits};
use serde_json::Value;

/// A parser of bodies, with the most texts that one may have; `None` is a request.
pub type Parser = fn(&[u8], usize) -> Option<ApiError>;

pub const PARSERS: [(&str, Parser); 11] = [
    ("embeddings", |body, max| EmbeddingsRequest::parse(body, max).err()),
    ("embed", |body, max| EmbedRequest::parse(body, max).err()),
    ("sparse", |body, max| SparseRequest::parse(body, max).err()),
    ("predict", |body, max| PredictRequest::parse(body, max).err()),
    ("rerank", |body, max| RerankRequest::parse(body, Path::V1, max).err()),
    ("bare rerank", |body, max| RerankRequest::parse(body, Path::Bare, max).err()),
    ("job", |body, max| {
        let id: JobId = "j".parse().unwrap();
        NativeJob::parse(body, &id, None, &Limits { inputs_max: max, ..Limits::default() }).err()
    }),
    ("cohere", |body, max| cohere::EmbedRequest::parse(body, cohere::Version::V2, max).err()),
    ("chat", |body, max| ChatRequest::parse(body, max).err()),
    ("completions", |body, max| CompletionRequest::parse(body, max).err()),
    ("responses", |body, max| ResponseRequest::parse(body, max).err()),
];

/// The most texts: few, so that the bound is met.
const INPUTS_MAX: usize = 3;

/// A body is a request, or a mistake of the caller that says something.
pub fn check_body(body: &[u8]) {
    for (name, parser) in PARSERS {
        let Some(mistake) = parser(body, INPUTS_MAX) else { continue };
        assert!(mistake.status.is_client_error(), "{name}: {mistake}");
        assert!(!mistake.message.is_empty() && mistake.message.len() < 4_096, "{name}: {mistake}");
        let written: Value = serde_json::from_slice(&mistake.body()).expect("JSON");
        assert!(written["error"]["message"].is_string(), "{name}: {mistake}");
    }
}

/// How many kinds of text [`check_head`] knows.
pub const HEADS: u8 = 7;

/// All that a request's head has is read, or refused, or ignored.
pub fn check_head(kind: u8, value: &[u8]) {
    let text = std::str::from_utf8(value).unwrap_or_default();
    match kind {
        0 => {
            let Some(headers) = with(AUTHORIZATION, value) else { return };
            if let Some(key) = heads::bearer(&headers) {
                assert_eq!(key, key.trim());
            }
        }
        1 => {
            if let Some(credential) = Credential::parse(text) {
                assert!(text.contains(credential.id().as_str()), "{text}");
                assert!(!format!("{credential:?}").contains(text), "a secret shows");
            }
        }
        2 => {
            for name in ["x-stainless-read-timeout", "x-stainless-timeout"] {
                let Some(headers) = with(HeaderName::from_static(name), value) else { return };
                let read = heads::client_timeout(&headers);
                assert!(read.is_none_or(|s| s.as_secs_f64() <= 1e9), "{read:?}");
            }
        }
        3 => {
            let Some(headers) = with(HeaderName::from_static("idempotency-key"), value) else {
                return;
            };
            if let Ok(Some(key)) = heads::idempotency_key(&headers)
                && let Ok(id) = native::idempotent_id("tenant", key, b"{}")
            {
                assert!(native::is_of(&id, "tenant") && !native::is_of(&id, "tenan"), "{id}");
            }
        }
        4 => {
            let Some(headers) = with(HeaderName::from_static("x-request-id"), value) else {
                return;
            };
            let id = heads::request_id(&headers);
            assert!((1..=128).contains(&id.len()) && HeaderValue::try_from(&id).is_ok(), "{id}");
        }
        5 => match heads::wait_of(text) {
            Ok(wait) => assert!(wait.as_secs_f64() <= 1e9, "{wait:?}"),
            Err(mistake) => assert!(mistake.status.is_client_error(), "{mistake}"),
        },
        _ => {
            let Some(headers) = with(HeaderName::from_static("last-event-id"), value) else {
                return;
            };
            if let Err(mistake) = heads::last_event_id(&headers) {
                assert!(mistake.status.is_client_error(), "{mistake}");
            }
        }
    }
}

fn with(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(name, value)]))
}
