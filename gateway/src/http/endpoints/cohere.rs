//! `POST /v1/embed` and `/v2/embed`, Cohere's.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::json;

use crate::{
    access::Scope,
    cohere::{self, Answer, CohereBody, EmbedRequest, Shape, Version},
    document::{Operation, Tag},
    error::ApiError,
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::expected_tokens,
    },
};

/// `POST /v1/embed` and `/v2/embed` in the document.
pub fn described(id: &'static str) -> Operation {
    let texts = json!(["water in a pool", "the gates open"]);
    let typed = json!({"model": "all-minilm-l6-v2", "texts": texts, "input_type": "search_document",
                       "embedding_types": ["float"]});
    Operation::work(id, Tag::Cohere, "One vector for each text")
        .body::<CohereBody>(vec![
            ("several texts", json!({"model": "all-minilm-l6-v2", "texts": texts})),
            ("vectors by their type", typed),
        ])
        .answers::<Answer<'_>>(200, "The vectors, in the order of the texts.")
}

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
    let held = body::read(app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| EmbedRequest::parse(bytes, version, inputs_max);
    let (asked, _permit) = body::parsed(app, held, parse).await?;
    let shape = Shape::from(&asked);
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let tokens = expected_tokens(asked.texts.iter().map(String::as_str));
    let size = Asked { field: "texts", inputs: asked.texts.len(), tokens: tokens.into() };
    let (attempts, grant) = app.call(&caller, &head.headers, &model, size).await?;
    let mut params = asked.params;
    params.truncate &= attempts.may_cut();
    let fleet = &app.fleet;
    let params = &params;
    // The answer repeats them.
    let texts = asked.texts.clone();
    let embed = |call, texts| async move { fleet.embed(&call, texts, params).await };
    let (vectors, answered) = attempts.run(asked.texts, embed).await?;
    let tokens = vectors.tokens;
    let bytes = vectors.bytes();
    let write = move || cohere::answer(shape, &texts, vectors.rows(), tokens);
    let written = app.long_work.run(bytes, write).await?;
    Ok(answered.said(grant.settled(tokens, answer::written(written)?)))
}
