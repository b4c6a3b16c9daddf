//! `POST /v1/chat/completions`.

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
    openai::generate::chat::{self, ChatAnswer, ChatBody, ChatRequest, Chunks},
};

/// `POST /v1/chat/completions` in the document.
pub fn described() -> Operation {
    let messages = json!([{"role": "user", "content": "What is in front of a turbine?"}]);
    let model = "smollm2-135m-instruct";
    let streamed = json!({"model": model, "messages": messages, "stream": true,
                          "stream_options": {"include_usage": true}, "max_completion_tokens": 64});
    let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    let kept = json!({"model": model, "messages": messages, "response_format": format});
    Operation::work("createChatCompletion", Tag::OpenAi, "An answer to a conversation")
        .describe(
            "With `stream` the answer comes as server-sent events: chunks, the last of them with the reason of the \
             end, and `[DONE]`. A client that leaves cancels its job. Tools are handed to the model's own template; \
             where `tool_choice` names one or is `required`, the answer is held to its schema.",
        )
        .body::<ChatBody>(vec![
            ("a question", json!({"model": model, "messages": messages})),
            ("an answer that comes as events", streamed),
            ("an answer that keeps to a schema", kept),
        ])
        .answers_with::<ChatAnswer>(200, "The answer, or its chunks as they come.", &["x-accel-buffering"])
        .or_text("text/event-stream")
}

/// An answer to a conversation.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let held = body::read(&app, &head.headers, body).await?;
    let messages_max = app.limits.inputs_max;
    let parse = move |bytes: &[u8]| ChatRequest::parse(bytes, messages_max);
    let (ChatRequest { text, form }, _permit) = body::parsed(&app, held, parse).await?;
    let admitted = admitted(&app, &caller, &head.headers, text, "messages").await?;
    if form.streaming.is_on {
        return streamed(app, admitted, |head| Box::new(Chunks::new(form, head))).await;
    }
    // The request has one prompt, so there is one output.
    whole(&app, admitted, |head, mut generated| {
        let output = generated.pop().map(|generated| chat::answer(&form, head, generated));
        output.unwrap_or_else(|| Ok(Vec::new()))
    })
    .await
}
