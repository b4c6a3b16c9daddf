//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    failures,
    http::{answer, app::App, path_id::PathId},
    openai::models::{Model, ModelList},
};

/// `GET /v1/models` in the document.
pub fn described_list() -> Operation {
    Operation::keyed(Scope::Read, "listModels", Tag::OpenAi, "All models and routes of the fleet")
        .describe("Those of the configuration, those of live workers, and routes with their aliases, in one page.")
        .answers::<ModelList>(200, "The models.")
}

/// `GET /v1/models/{id}` in the document.
pub fn described_one() -> Operation {
    Operation::keyed(Scope::Read, "retrieveModel", Tag::OpenAi, "One model or route")
        .parameter("ModelId")
        .answers::<Model>(200, "The model.")
        .errors(&[400, 404])
}

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
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    app.gate.admit(&headers, Scope::Read).await?;
    let known = app.known_names().await;
    if !known.contains(&id) {
        return Err(failures::no_model(&id, &known));
    }
    Ok(answer::json(StatusCode::OK, &Model::new(id, app.started_at_s)))
}
