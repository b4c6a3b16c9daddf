//! `GET /health`, `/healthz` and `/readyz`, which need no key.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::json;

use crate::http::{answer, app::App};

/// The process answers.
pub async fn alive() -> Response {
    answer::json(StatusCode::OK, &json!({"status": "alive"}))
}

/// Whether requests can be served: broker and store are there. Why not is at `/readyz` of the telemetry port.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let is_ready = app.health.ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &json!({"ready": is_ready}))
}
