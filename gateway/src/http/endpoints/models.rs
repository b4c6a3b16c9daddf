//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};

use crate::{
    access::Scope,
    error::ApiError,
    failures,
    http::{answer, app::App},
    openai::models::{Model, ModelList},
};

/// All models of the fleet, and all routes with their aliases.
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.gate.admit(&headers, Scope::Read).await?;
    let models = app.known_names().await.into_iter();
    let models: Vec<Model> = models.map(|id| Model::new(id, app.started_at_s)).collect();
    Ok(answer::json(StatusCode::OK, &ModelList::from(models)))
}

/// One model or route.
pub async fn retrieve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    app.gate.admit(&headers, Scope::Read).await?;
    let known = app.known_names().await;
    if !known.contains(&id) {
        return Err(failures::no_model(&id, &known));
    }
    Ok(answer::json(StatusCode::OK, &Model::new(id, app.started_at_s)))
}
