//! Parsers of bodies meet anything: they answer with a request or with a mistake of the caller, and never panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay_gateway::{
    cohere,
    error::ApiError,
    native::NativeJob,
    openai::embeddings::EmbeddingsRequest,
    rerank::{Path, RerankRequest},
    tei::{EmbedRequest, PredictRequest, SparseRequest},
};
use forebay_schemas::{JobId, Limits};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const INPUTS_MAX: usize = 3;

/// The mistakes that the parsers find in a body.
fn mistakes(body: &[u8]) -> Vec<ApiError> {
    let id: JobId = "j".parse().unwrap();
    let parsed = [
        EmbeddingsRequest::parse(body, INPUTS_MAX).err(),
        EmbedRequest::parse(body, INPUTS_MAX).err(),
        cohere::EmbedRequest::parse(body, cohere::Version::V2, INPUTS_MAX).err(),
        SparseRequest::parse(body, INPUTS_MAX).err(),
        PredictRequest::parse(body, INPUTS_MAX).err(),
        RerankRequest::parse(body, Path::V1, INPUTS_MAX).err(),
        RerankRequest::parse(body, Path::Bare, INPUTS_MAX).err(),
        NativeJob::parse(body, &id, None, &Limits::default()).err(),
    ];
    parsed.into_iter().flatten().collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        prop_oneof!["embed", "rerank", "float", "base64", "m", "interactive"].prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let texts = prop_oneof![Just("text".to_owned()), ".{0,4}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((texts, inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A name that one of the parsers reads, mostly.
fn any_name() -> impl Strategy<Value = String> {
    let known = prop_oneof![
        "model",
        "input",
        "inputs",
        "documents",
        "texts",
        "embedding_types",
        "output_dimension",
        "query",
        "dimensions",
        "top_n",
        "top_k",
        "task",
        "params",
        "metadata",
        "lane",
        "v",
        "id",
        "truncate",
        "normalize",
        "raw_scores",
        "encoding_format",
        "tokenizer",
        "input_ids",
        "expires_in_ms",
        "return_documents",
    ];
    prop_oneof![9 => known, 1 => ".{0,6}"]
}

proptest! {
    #[test]
    fn bytes_are_a_request_or_a_mistake(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for mistake in mistakes(&body) {
            prop_assert!(mistake.status.is_client_error(), "{}", mistake);
        }
    }

    #[test]
    fn objects_are_a_request_or_a_mistake_that_says_something(
        pairs in proptest::collection::vec((any_name(), any_value()), 0..6),
        cut in 0..400_usize,
    ) {
        let body = Value::from(pairs.into_iter().collect::<Map<_, _>>()).to_string();
        for body in [body.as_bytes(), &body.as_bytes()[..cut.min(body.len())]] {
            for mistake in mistakes(body) {
                prop_assert!(mistake.status.is_client_error(), "{}", mistake);
                prop_assert!(!mistake.message.is_empty());
                let written: Value = serde_json::from_slice(&mistake.body()).unwrap();
                prop_assert!(written["error"]["message"].is_string());
            }
        }
    }
}
