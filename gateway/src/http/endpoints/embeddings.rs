//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use forebay_schemas::EmbedParams;
use serde_json::json;

use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    http::{answer, app::App, body, governed::expected_tokens},
    openai::embeddings::{self, Answer, EmbeddingsBody, EmbeddingsRequest},
};

/// `POST /v1/embeddings` in the document.
pub fn described() -> Operation {
    let texts = json!(["water in a pool", "the gates open"]);
    let packed = json!({"model": "all-minilm-l6-v2", "input": "water in a pool", "encoding_format": "base64",
                        "dimensions": 8});
    Operation::work("createEmbeddings", Tag::OpenAi, "One vector for each text")
        .describe("Long lists are split into several jobs, and their results joined in order.")
        .body::<EmbeddingsBody>(vec![
            ("several texts", json!({"model": "all-minilm-l6-v2", "input": texts})),
            ("eight dimensions, as base64", packed),
        ])
        .answers::<Answer<'_>>(200, "The vectors, in the order of the texts.")
}

/// One vector for each text.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = EmbeddingsRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let tokens = expected_tokens(asked.input.iter().map(String::as_str));
    let (call, grant) = app.call(&caller, &head.headers, model, "input", tokens).await?;
    let params = EmbedParams { dimensions: asked.dimensions, ..EmbedParams::default() };
    let vectors = app.fleet.embed(&call, asked.input, &params).await?;
    let model = call.model.as_str();
    let answer = embeddings::answer(model, &vectors.parts, asked.encoding, vectors.tokens);
    Ok(grant.settled(vectors.tokens, answer::written(answer)?))
}
