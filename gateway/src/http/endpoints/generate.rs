//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/responses`: no model generates text yet.

use axum::http::StatusCode;

use serde_json::{Map, Value};

use crate::{
    document::{Operation, Tag},
    error::ApiError,
};

/// An endpoint that would generate text, in the document; its body is not read.
pub fn described(id: &'static str) -> Operation {
    Operation::open(id, Tag::OpenAi, "Not available: no model generates text")
        .describe("Answers 400 with the code `task_not_supported`, whatever comes.")
        .body::<Map<String, Value>>(Vec::new())
        .errors(&[400])
}

/// The answer while the engine has no model that generates. It is final, so that clients don't try again.
pub async fn not_supported() -> ApiError {
    let message = "no model of this fleet generates text; it makes vectors (/v1/embeddings), rankings (/v1/rerank) \
                   and labels (/predict)";
    ApiError::mistake(StatusCode::BAD_REQUEST, "task_not_supported", message)
}
