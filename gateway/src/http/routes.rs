//! Which path leads to which endpoint.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware,
    routing::{get, post},
};

use super::{
    app::App,
    endpoints::{
        cohere, document, embeddings, events, generate, health, jobs, models, rerank, tei, usage,
    },
    observe::observe,
};
use crate::error::ApiError;

/// All endpoints.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/models", get(models::list))
        // An id may have slashes, percent-encoded or not.
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/v1/chat/completions", post(generate::chat::create))
        .route("/v1/completions", post(generate::completions::create))
        .route("/v1/responses", post(generate::responses::create))
        .route("/v1/embed", post(cohere::v1))
        .route("/v2/embed", post(cohere::v2))
        .route("/v1/rerank", post(rerank::v1))
        .route("/v2/rerank", post(rerank::v2))
        .route("/rerank", post(rerank::bare))
        .route("/embed", post(tei::embed))
        .route("/embed_sparse", post(tei::embed_sparse))
        .route("/predict", post(tei::predict))
        .route("/", post(tei::embed))
        .route("/info", get(tei::info))
        .route("/v1/jobs", post(jobs::create))
        .route("/v1/jobs/{id}", get(jobs::retrieve).delete(jobs::cancel))
        .route("/v1/jobs/{id}/events", get(events::follow))
        .route("/v1/usage", get(usage::report))
        .route("/health", get(health::alive))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(document::openapi))
        .route("/docs", get(document::page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(observe))
        .with_state(app)
}

async fn unknown_path(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    let message =
        format!("there is nothing at {path}: see docs/gateway.md for the paths that there are");
    ApiError::mistake(StatusCode::NOT_FOUND, "unknown_path", message)
}

async fn wrong_method(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    let message =
        format!("{path} does not take {}: the header `Allow` has what it takes", request.method());
    ApiError::mistake(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}
