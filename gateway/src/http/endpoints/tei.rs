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
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::{Caller, Grant, expected_tokens},
    },
    routing::{Attempts, Named},
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

/// The models to ask for a request to one of these, and what was reserved for it.
async fn call(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    model: (Option<String>, Option<&ModelId>),
    inputs: &[String],
) -> Result<(Attempts, Grant), ApiError> {
    let (named, unnamed) = model;
    let model = app.model(named, unnamed).await?;
    let tokens = expected_tokens(inputs.iter().map(String::as_str));
    let size = Asked { field: "inputs", inputs: inputs.len(), tokens: tokens.into() };
    app.call(caller, headers, &model, size).await
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
    let (attempts, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let fleet = &app.fleet;
    let mut params = asked.params;
    params.truncate &= attempts.may_cut();
    let params = &params;
    let embed = |call, texts| async move { fleet.embed(&call, texts, params).await };
    let (vectors, answered) = attempts.run(asked.inputs, embed).await?;
    let tokens = vectors.tokens;
    let bytes = vectors.bytes();
    let written = app.long_work.run(bytes, move || tei::vectors(&vectors.rows())).await?;
    Ok(answered.said(grant.settled(tokens, answer::written(written)?)))
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
    let (attempts, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let fleet = &app.fleet;
    let mut params = asked.params;
    params.truncate &= attempts.may_cut();
    let params = &params;
    let embed = |call, texts| async move { fleet.embed_sparse(&call, texts, params).await };
    let ((vectors, tokens), answered) = attempts.run(asked.inputs, embed).await?;
    Ok(answered.said(grant.settled(tokens, answer::written(tei::sparse_vectors(&vectors))?)))
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
    let (attempts, grant) = call(&app, &caller, &head.headers, model, &asked.inputs).await?;
    let fleet = &app.fleet;
    let classify = |call, texts| async move { fleet.classify(&call, texts).await };
    let ((labels, tokens), answered) = attempts.run(asked.inputs, classify).await?;
    let answer = answer::written(tei::labels(&labels, asked.is_single))?;
    Ok(answered.said(grant.settled(tokens, answer)))
}

/// The model of requests that name none.
pub async fn info(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.gate.admit(&headers, Scope::Read).await?;
    let named = app.model(None, app.config.embed_model.as_ref()).await?;
    let name = match &named {
        Named::Model(model) => model.as_str(),
        Named::Route(route) => route.name.as_str(),
    };
    Ok(answer::json(StatusCode::OK, &tei::info(name, app.config.inputs_max)))
}
