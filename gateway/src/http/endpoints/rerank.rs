//! `POST /v1/rerank`, `/v2/rerank` and `/rerank`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use serde_json::json;

use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::expected_tokens,
    },
    rerank::{self, Answer, BareRerankBody, Path, RerankBody, RerankRequest},
};

/// `POST /v1/rerank` and `/v2/rerank` in the document.
pub fn described(id: &'static str) -> Operation {
    let documents = json!(["The gates open at noon.", {"text": "A pool of water."}]);
    let mut voyage =
        json!({"query": "when do the gates open?", "documents": documents, "top_k": 1});
    voyage["return_documents"] = json!(true);
    common(id)
        .describe(
            "With `top_k` or `truncation` the answer is Voyage's, otherwise Cohere's, which Jina's \
             clients read too.",
        )
        .body::<RerankBody>(vec![
            (
                "Cohere's and Jina's",
                json!({"query": "when do the gates open?", "documents": documents, "top_n": 2}),
            ),
            ("Voyage's", voyage),
        ])
}

/// `POST /rerank` in the document.
pub fn described_bare() -> Operation {
    let texts = json!(["The gates open at noon.", "A pool of water."]);
    common("rerank").describe("With `texts` the answer is TEI's bare list.").body::<BareRerankBody>(
        vec![
            (
                "TEI's",
                json!({"query": "when do the gates open?", "texts": texts, "return_text": true}),
            ),
            ("Jina's", json!({"query": "when do the gates open?", "documents": texts})),
        ],
    )
}

fn common(id: &'static str) -> Operation {
    Operation::work(id, Tag::Rankings, "Documents, the most relevant first")
        .answers::<Answer<'_>>(200, "The documents' positions with their scores, the best first.")
}

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
    let size = Asked { field, inputs: asked.documents.len(), tokens: tokens.into() };
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
