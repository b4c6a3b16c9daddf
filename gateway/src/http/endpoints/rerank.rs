//! `POST /v1/rerank`, `/v2/rerank` and `/rerank`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};

use crate::{
    access::Scope,
    error::ApiError,
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::expected_tokens,
    },
    rerank::{self, Path, RerankRequest},
};

/// `POST /v1/rerank`
pub async fn v1(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    create(&app, request, Path::V1).await
}

/// `POST /v2/rerank`
pub async fn v2(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    create(&app, request, Path::V2).await
}

/// `POST /rerank`
pub async fn bare(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    create(&app, request, Path::Bare).await
}

async fn create(app: &App, request: Request, path: Path) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| RerankRequest::parse(bytes, path, inputs_max);
    let (mut asked, _permit) = body::parsed(app, held, parse).await?;
    let model = app.model(asked.model.take(), app.config.rerank_model.as_ref()).await?;
    let field = asked.documents_field();
    // Every document is read together with the query.
    let pairs = asked.documents.iter().flat_map(|document| [asked.query.as_str(), document]);
    let tokens = expected_tokens(pairs);
    let size = Asked { field, inputs: asked.documents.len(), tokens };
    let (attempts, grant) = app.call(&caller, &head.headers, &model, size).await?;
    let documents = std::mem::take(&mut asked.documents);
    let returned = asked.with_documents.then(|| documents.clone());
    let fleet = &app.fleet;
    let query = &asked.query;
    let rank = |call, documents| async move { fleet.rerank(&call, query, documents).await };
    let (ranking, answered) = attempts.run(documents, rank).await?;
    let model = answered.model.as_str();
    let answer =
        rerank::answer(&asked, model, &ranking.scores, returned.as_deref(), ranking.tokens);
    Ok(answered.said(grant.settled(ranking.tokens, answer::json(StatusCode::OK, &answer))))
}
