//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use forebay_schemas::EmbedParams;

use crate::{
    error::ApiError,
    fleet::Call,
    http::{answer, app::App, body, governed},
    openai::embeddings::{self, EmbeddingsRequest},
};

/// One vector for each text.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = governed::admit();
    let body::Held { bytes, permit: _permit } = body::read(&app, &head.headers, body).await?;
    let asked = EmbeddingsRequest::parse(&bytes, app.config.inputs_max)?;
    drop(bytes);
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let call =
        Call { model, tenant: caller.tenant, wait: app.wait_of(&head.headers), field: "input" };
    let params = EmbedParams { dimensions: asked.dimensions, ..EmbedParams::default() };
    let vectors = app.fleet.embed(&call, asked.input, &params).await?;
    let model = call.model.as_str();
    answer::written(embeddings::answer(model, &vectors.parts, asked.encoding, vectors.tokens))
}
