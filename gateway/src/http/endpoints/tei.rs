//! `POST /embed`, `/`, `/embed_sparse` and `/predict`, and `GET /info`: the endpoints of text-embeddings-inference.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use forebay_schemas::ModelId;

use crate::{
    access::Scope,
    error::ApiError,
    fleet::Call,
    http::{
        answer,
        app::App,
        body,
        governed::{Caller, Grant, expected_tokens},
    },
    tei::{self, EmbedRequest, PredictRequest, SparseRequest},
};

/// The call that a request to one of these makes, and what was reserved for it.
async fn call(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    model: (Option<String>, Option<&ModelId>),
    inputs: &[String],
) -> Result<(Call, Grant), ApiError> {
    let (named, unnamed) = model;
    let model = app.model(named, unnamed).await?;
    let tokens = expected_tokens(inputs.iter().map(String::as_str));
    app.call(caller, headers, model, "inputs", tokens).await
}

/// One vector for each text.
pub async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| EmbedRequest::parse(bytes, inputs_max);
    let (asked, _permit) = body::parsed(&app, held, parse).await?;
    let model = (asked.model, app.config.embed_model.as_ref());
    let (call, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let vectors = app.fleet.embed(&call, asked.inputs, &asked.params).await?;
    let tokens = vectors.tokens;
    let bytes = vectors.bytes();
    let written = app.long_work.run(bytes, move || tei::vectors(&vectors.rows())).await?;
    Ok(grant.settled(tokens, answer::written(written)?))
}

/// One sparse vector for each text.
pub async fn embed_sparse(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| SparseRequest::parse(bytes, inputs_max);
    let (asked, _permit) = body::parsed(&app, held, parse).await?;
    let model = (asked.model, app.config.sparse_model.as_ref());
    let (call, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let (vectors, tokens) = app.fleet.embed_sparse(&call, asked.inputs, &asked.params).await?;
    Ok(grant.settled(tokens, answer::written(tei::sparse_vectors(&vectors))?))
}

/// All labels of each text.
pub async fn predict(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| PredictRequest::parse(bytes, inputs_max);
    let (asked, _permit) = body::parsed(&app, held, parse).await?;
    let model = (asked.model, app.config.classify_model.as_ref());
    let (call, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let (labels, tokens) = app.fleet.classify(&call, asked.inputs).await?;
    Ok(grant.settled(tokens, answer::written(tei::labels(&labels, asked.is_single))?))
}

/// The model of requests that name none.
pub async fn info(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.gate.admit(&headers, Scope::Read).await?;
    let model = app.model(None, app.config.embed_model.as_ref()).await?;
    Ok(answer::json(StatusCode::OK, &tei::info(model.as_str(), app.config.inputs_max)))
}
