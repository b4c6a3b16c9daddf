//! `POST /v1/embed` and `/v2/embed`, Cohere's.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};

use crate::{
    access::Scope,
    cohere::{self, EmbedRequest, Shape, Version},
    error::ApiError,
    http::{answer, app::App, body, governed::expected_tokens},
};

/// `POST /v1/embed`
pub async fn v1(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    create(&app, request, Version::V1).await
}

/// `POST /v2/embed`
pub async fn v2(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    create(&app, request, Version::V2).await
}

async fn create(app: &App, request: Request, version: Version) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let body::Held { bytes, permit: _permit } = body::read(app, &head.headers, body).await?;
    let asked = EmbedRequest::parse(&bytes, version, app.config.inputs_max)?;
    drop(bytes);
    let shape = Shape::from(&asked);
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let tokens = expected_tokens(asked.texts.iter().map(String::as_str));
    let (call, grant) = app.call(&caller, &head.headers, model, "texts", tokens).await?;
    // The answer repeats them.
    let texts = asked.texts.clone();
    let vectors = app.fleet.embed(&call, asked.texts, &asked.params).await?;
    let answer = cohere::answer(shape, &texts, &vectors.parts, vectors.tokens);
    Ok(grant.settled(vectors.tokens, answer::written(answer)?))
}
