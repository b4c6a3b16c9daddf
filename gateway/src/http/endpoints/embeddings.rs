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
    http::{
        answer,
        app::{App, Asked},
        body,
        governed::{expected_ids, expected_tokens},
    },
    inputs::Input,
    openai::embeddings::{self, Answer, EmbeddingsBody, EmbeddingsRequest},
};

/// Says for how many of the texts the vector was there before.
const CACHE: &str = "x-forebay-cache";

/// `POST /v1/embeddings` in the document.
pub fn described() -> Operation {
    let texts = json!(["water in a pool", "the gates open"]);
    let packed = json!({"model": "all-minilm-l6-v2", "input": "water in a pool", "encoding_format": "base64",
                        "dimensions": 8});
    Operation::work("createEmbeddings", Tag::OpenAi, "One vector for each text, or for each sequence of token ids")
        .describe(
            "Long lists are split into several jobs, and their results joined in order. Token ids, whole with their \
             special tokens, are taken where `tokenizer` names the model that reads them.",
        )
        .body::<EmbeddingsBody>(vec![
            ("several texts", json!({"model": "all-minilm-l6-v2", "input": texts})),
            ("eight dimensions, as base64", packed),
        ])
        .answers_with::<Answer<'_>>(200, "The vectors, in the order of the inputs.", &["x-forebay-cache"])
}

/// One vector for each text, or for each sequence of token ids.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let inputs_max = app.config.inputs_max;
    let parse = move |bytes: &[u8]| EmbeddingsRequest::parse(bytes, inputs_max);
    let (asked, _permit) = body::parsed(&app, held, parse).await?;
    let model = app.model(asked.model, app.config.embed_model.as_ref()).await?;
    let tokens = match &asked.input {
        Input::Texts(texts) => expected_tokens(texts.iter().map(String::as_str)),
        Input::Ids { sequences, .. } => expected_ids(sequences),
    };
    let size = Asked { field: "input", inputs: asked.input.count(), tokens: tokens.into() };
    let (attempts, grant) = app.call(&caller, &head.headers, &model, size).await?;
    let params = &EmbedParams {
        dimensions: asked.dimensions,
        truncate: attempts.may_cut(),
        ..EmbedParams::default()
    };
    let fleet = &app.fleet;
    let embed = |call, input| async move {
        match input {
            Input::Texts(texts) => fleet.embed(&call, texts, params).await,
            Input::Ids { sequences, tokenizer } => {
                fleet.embed_ids(&call, sequences, &tokenizer, params).await
            }
        }
    };
    let attempts = match &asked.input {
        Input::Texts(_) => attempts,
        // Ids are of one model; another one would read other texts.
        Input::Ids { tokenizer, .. } => attempts.only(tokenizer),
    };
    let (vectors, answered) = attempts.run(asked.input, embed).await?;
    let tokens = vectors.tokens;
    let hits = vectors.hits.map(|hits| format!("hits={hits} of={}", vectors.count()));
    let bytes = vectors.bytes();
    let model = answered.model.clone();
    let write = move || embeddings::answer(model.as_str(), &vectors.rows(), asked.encoding, tokens);
    let written = app.long_work.run(bytes, write).await?;
    let mut response = answer::written(written)?;
    answer::add(&mut response, hits.map(|hits| (CACHE, hits)).into_iter().collect());
    Ok(answered.said(grant.settled(tokens, response)))
}
