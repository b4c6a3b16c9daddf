//! `POST /embed`, `/`, `/embed_sparse` and `/predict`, and `GET /info`: the endpoints of text-embeddings-inference.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use forebay_schemas::ModelId;

use crate::{
    error::ApiError,
    fleet::Call,
    http::{answer, app::App, body, governed},
    tei::{self, EmbedRequest, PredictRequest, SparseRequest},
};

async fn call(
    app: &App,
    headers: &HeaderMap,
    named: Option<String>,
    unnamed: Option<&ModelId>,
) -> Result<Call, ApiError> {
    Ok(Call {
        model: app.model(named, unnamed).await?,
        tenant: governed::admit().tenant,
        wait: app.wait_of(headers),
        field: "inputs",
    })
}

/// One vector for each text.
pub async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = EmbedRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let unnamed = app.config.embed_model.as_ref();
    let call = call(&app, &head.headers, asked.model, unnamed).await?;
    let vectors = app.fleet.embed(&call, asked.inputs, &asked.params).await?;
    answer::written(tei::vectors(&vectors.parts))
}

/// One sparse vector for each text.
pub async fn embed_sparse(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = SparseRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let unnamed = app.config.sparse_model.as_ref();
    let call = call(&app, &head.headers, asked.model, unnamed).await?;
    let vectors = app.fleet.embed_sparse(&call, asked.inputs, &asked.params).await?;
    answer::written(tei::sparse_vectors(&vectors))
}

/// All labels of each text.
pub async fn predict(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = PredictRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let unnamed = app.config.classify_model.as_ref();
    let call = call(&app, &head.headers, asked.model, unnamed).await?;
    let labels = app.fleet.classify(&call, asked.inputs).await?;
    answer::written(tei::labels(&labels, asked.is_single))
}

/// The model of requests that name none.
pub async fn info(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let model = app.model(None, app.config.embed_model.as_ref()).await?;
    Ok(answer::json(StatusCode::OK, &tei::info(model.as_str(), app.config.inputs_max)))
}
