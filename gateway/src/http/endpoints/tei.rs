//! `POST /embed`, `/`, `/embed_sparse` and `/predict`, and `GET /info`: the endpoints of text-embeddings-inference.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use forebay_schemas::ModelId;
use serde_json::json;

use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    fleet::Call,
    http::{
        answer,
        app::App,
        body,
        governed::{Caller, Grant, expected_tokens},
    },
    tei::{
        self, EmbedBody, EmbedRequest, Info, Labels, PredictBody, PredictRequest, SparseBody,
        SparseRequest, SparseValue,
    },
};

/// `POST /embed` and `/` in the document.
pub fn described_embed(id: &'static str) -> Operation {
    Operation::work(id, Tag::Tei, "One vector for each text")
        .body::<EmbedBody>(vec![
            ("one text", json!({"inputs": "water in a pool"})),
            (
                "several texts, refused if too long",
                json!({"inputs": ["a", "b"], "truncate": false}),
            ),
        ])
        .answers::<Vec<Vec<f32>>>(200, "The vectors, in the order of the texts.")
}

/// `POST /embed_sparse` in the document.
pub fn described_sparse() -> Operation {
    Operation::work("embedSparse", Tag::Tei, "One sparse vector for each text")
        .body::<SparseBody>(vec![("one text", json!({"inputs": "water in a pool"}))])
        .answers::<Vec<Vec<SparseValue>>>(200, "The values of each text's vector.")
}

/// `POST /predict` in the document.
pub fn described_predict() -> Operation {
    Operation::work("predict", Tag::Tei, "All labels of each text, with their scores")
        .body::<PredictBody>(vec![
            ("one text", json!({"inputs": "water in a pool"})),
            ("a batch", json!({"inputs": [["water in a pool"], ["the gates open"]]})),
        ])
        .answers::<Labels>(200, "The labels, best first.")
}

/// `GET /info` in the document.
pub fn described_info() -> Operation {
    Operation::keyed(Scope::Read, "info", Tag::Tei, "The model of requests that name none")
        .answers::<Info<'_>>(200, "The model.")
        .errors(&[400])
}

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
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = EmbedRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let model = (asked.model, app.config.embed_model.as_ref());
    let (call, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let vectors = app.fleet.embed(&call, asked.inputs, &asked.params).await?;
    Ok(grant.settled(vectors.tokens, answer::written(tei::vectors(&vectors.parts))?))
}

/// One sparse vector for each text.
pub async fn embed_sparse(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = SparseRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let model = (asked.model, app.config.sparse_model.as_ref());
    let (call, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let (vectors, tokens) = app.fleet.embed_sparse(&call, asked.inputs, &asked.params).await?;
    Ok(grant.settled(tokens, answer::written(tei::sparse_vectors(&vectors))?))
}

/// All labels of each text.
pub async fn predict(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = PredictRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
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
