//! `POST /v1/responses`.

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
    openai::generate::responses::{
        self, ResponseAnswer, ResponseBody, ResponseEvents, ResponseRequest,
    },
};

/// `POST /v1/responses` in the document.
pub fn described() -> Operation {
    let model = "smollm2-135m-instruct";
    let text =
        json!({"model": model, "input": "What is in front of a turbine?", "max_output_tokens": 64});
    Operation::work("createResponse", Tag::OpenAi, "A response to a text or a conversation")
        .describe(
            "With `stream` it comes as server-sent events, the last of which has the whole response. Responses are \
             not stored: each request sends the whole conversation. A client that leaves cancels its job.",
        )
        .body::<ResponseBody>(vec![("a question", text)])
        .answers_with::<ResponseAnswer>(200, "The response, or its events as they come.", &["x-accel-buffering"])
        .or_text("text/event-stream")
}

/// A response to a text or a conversation.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let items_max = app.limits.inputs_max;
    let parse = move |bytes: &[u8]| ResponseRequest::parse(bytes, items_max);
    let (ResponseRequest { text, form }, _permit) = body::parsed(&app, held, parse).await?;
    let admitted = admitted(&app, &caller, &head.headers, text, "input").await?;
    if form.is_streamed {
        return streamed(app, admitted, |head| Box::new(ResponseEvents::new(form, head))).await;
    }
    // The request has one prompt, so there is one output.
    whole(&app, admitted, |head, mut generated| {
        let output = generated.pop().map(|generated| responses::answer(&form, head, generated));
        output.unwrap_or_else(|| Ok(Vec::new()))
    })
    .await
}
