//! `GET /health`, `/healthz` and `/readyz`, which need no key.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    document::{Operation, Tag},
    http::{answer, app::App},
};

/// The answer of a process that serves.
#[derive(Serialize, JsonSchema)]
pub struct Alive {
    #[schemars(extend("const" = "alive"))]
    status: &'static str,
}

/// Whether requests can be served.
#[derive(Serialize, JsonSchema)]
pub struct Ready {
    /// Broker and store are there.
    ready: bool,
}

/// `GET /health` and `/healthz` in the document.
pub fn described_alive(id: &'static str) -> Operation {
    Operation::open(id, Tag::Service, "Whether the process answers")
        .answers::<Alive>(200, "It does.")
}

/// `GET /readyz` in the document.
pub fn described_ready() -> Operation {
    Operation::open("ready", Tag::Service, "Whether requests can be served")
        .answers::<Ready>(200, "Broker and store are there.")
        .answers::<Ready>(503, "Broker or store are away.")
}

/// The process answers.
pub async fn alive() -> Response {
    answer::json(StatusCode::OK, &Alive { status: "alive" })
}

/// Whether requests can be served: broker and store are there. Why not is at `/readyz` of the telemetry port.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let is_ready = app.health.ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &Ready { ready: is_ready })
}
