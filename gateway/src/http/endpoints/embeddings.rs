//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use forebay_schemas::EmbedParams;

use crate::{
    access::Scope,
    error::ApiError,
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::expected_tokens,
    },
    openai::embeddings::{self, EmbeddingsRequest},
};

/// One vector for each text.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = EmbeddingsRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let tokens = expected_tokens(asked.input.iter().map(String::as_str));
    let size = Asked { field: "input", inputs: asked.input.len(), tokens };
    let (attempts, grant) = app.call(&caller, &head.headers, &model, size).await?;
    let params = &EmbedParams {
        dimensions: asked.dimensions,
        truncate: attempts.may_cut(),
        ..EmbedParams::default()
    };
    let fleet = &app.fleet;
    let embed = |call, texts| async move { fleet.embed(&call, texts, params).await };
    let (vectors, answered) = attempts.run(asked.input, embed).await?;
    let model = answered.model.as_str();
    let answer = embeddings::answer(model, &vectors.parts, asked.encoding, vectors.tokens);
    Ok(answered.said(grant.settled(vectors.tokens, answer::written(answer)?)))
}
