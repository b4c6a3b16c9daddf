//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/responses`: no model generates text yet.

use axum::http::StatusCode;

use crate::error::ApiError;

/// The answer while the engine has no model that generates. It is final, so that clients don't try again.
pub async fn not_supported() -> ApiError {
    let message = "no model of this fleet generates text; it makes vectors (/v1/embeddings), rankings (/v1/rerank) \
                   and labels (/predict)";
    ApiError::mistake(StatusCode::BAD_REQUEST, "task_not_supported", message)
}
