//! `POST /v1/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::json;

use super::{admitted, streamed, whole};
use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    http::{app::App, body},
    openai::generate::completions::{
        self, Chunks, CompletionAnswer, CompletionBody, CompletionRequest,
    },
};

/// The most prompts of one request. Each is a job, and all of their answers are held until the last has come.
const PROMPTS_MAX: usize = 128;

/// `POST /v1/completions` in the document.
pub fn described() -> Operation {
    let body =
        json!({"model": "smollm2-135m-instruct", "prompt": "A forebay is", "max_tokens": 32});
    Operation::work("createCompletion", Tag::OpenAi, "Text that goes on from a prompt")
        .describe(
            "With `stream` the answer comes as server-sent events: chunks, the last of them with the reason of the \
             end, and `[DONE]`. A client that leaves cancels its jobs.",
        )
        .body::<CompletionBody>(vec![("a text to go on with", body)])
        .answers_with::<CompletionAnswer>(
            200,
            "An answer to each prompt, or the chunks of one as they come.",
            &["x-accel-buffering"],
        )
        .or_text("text/event-stream")
}

/// Text that goes on from a prompt.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let parse = |bytes: &[u8]| CompletionRequest::parse(bytes, PROMPTS_MAX);
    let (CompletionRequest { text, form }, _permit) = body::parsed(&app, held, parse).await?;
    let admitted = admitted(&app, &caller, &head.headers, text, "prompt").await?;
    if form.streaming.is_on {
        return streamed(app, admitted, |head| Box::new(Chunks::new(form, head))).await;
    }
    whole(&app, admitted, |head, generated| completions::answer(form, head, generated)).await
}
