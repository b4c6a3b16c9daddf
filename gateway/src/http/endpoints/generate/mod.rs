//! Endpoints that generate text: `POST /v1/chat/completions`, `/v1/completions` and `/v1/responses`.

pub mod chat;
pub mod completions;
pub mod responses;
mod stream;

use std::{sync::Arc, time::Duration};

use axum::{http::HeaderMap, response::Response};
use forebay_client::JobId;
use forebay_fabric::clock::now_ms;

use crate::{
    access::Tokens,
    error::ApiError,
    http::{
        answer,
        app::{App, Asked},
        governed::{Caller, Grant, expected_text},
    },
    openai::generate::{
        completions::sum,
        output::{Events, Generated, Head, TextRequest},
    },
    routing::{Answered, Attempts},
};

/// How long the beginning of a stream waits for the first tokens, so that a mistake in the prompt is an answer with a
/// status of its own. Longer than most prompts take on a fleet that runs, and shorter than the patience of proxies.
const FIRST: Duration = Duration::from_secs(10);

/// A request that is admitted: the models to ask, and what was reserved.
struct Admitted {
    attempts: Attempts,
    grant: Grant,
    text: TextRequest,
}

/// Reserves what a request for text is expected to take. `field` is the one that its prompt came in.
async fn admitted(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    mut text: TextRequest,
    field: &'static str,
) -> Result<Admitted, ApiError> {
    let model = app.model(text.model.take(), None).await?;
    let tokens = text.prompts.iter().map(|prompt| expected_text(prompt, &text.params));
    let tokens = tokens.fold(Tokens::default(), |sum, tokens| Tokens {
        input: sum.input + tokens.input,
        output: sum.output.saturating_add(tokens.output),
    });
    let size = Asked { field, inputs: text.prompts.len(), tokens };
    let (attempts, grant) = app.call(caller, headers, &model, size).await?;
    Ok(Admitted { attempts, grant, text })
}

/// The head of an answer that begins now.
fn head_of(id: &JobId, answered: &Answered) -> Head {
    Head { id: id.to_string(), model: answered.model.to_string(), created: now_ms() / 1_000 }
}

/// The tokens that outputs took.
fn tokens_of(generated: &[Generated]) -> Tokens {
    let usage = sum(generated.iter().map(|generated| generated.usage));
    Tokens { input: usage.input_tokens, output: usage.output_tokens }
}

/// The whole answers to all prompts of a request.
async fn whole(
    app: &App,
    admitted: Admitted,
    write: impl FnOnce(&Head, Vec<Generated>) -> serde_json::Result<Vec<u8>>,
) -> Result<Response, ApiError> {
    let Admitted { attempts, grant, text } = admitted;
    let fleet = &app.fleet;
    let params = &text.params;
    let ask = |call, prompts| async move { fleet.generate(&call, prompts, params).await };
    match attempts.run(text.prompts, ask).await {
        Ok(((generated, id), answered)) => {
            let tokens = tokens_of(&generated);
            let written = write(&head_of(&id, &answered), generated);
            Ok(answered.said(grant.settled(tokens, answer::written(written)?)))
        }
        Err(error) => Err(grant.failed(error)),
    }
}

/// The answer to the one prompt of a request, as events that come with its tokens.
async fn streamed(
    app: Arc<App>,
    admitted: Admitted,
    events: impl FnOnce(Head) -> Box<dyn Events>,
) -> Result<Response, ApiError> {
    let Admitted { attempts, grant, mut text } = admitted;
    let Some(prompt) = text.prompts.pop() else {
        return Err(grant.failed(ApiError::internal("the request has no prompt")));
    };
    let Ok(permit) = app.streams.clone().try_acquire_owned() else {
        let message = "the gateway has as many streams of events as it may: try again soon, or without `stream`";
        return Err(ApiError::unavailable("overloaded", message));
    };
    let longest = Duration::from_millis(app.config.stream_wait_ms_max);
    // A route's next model is asked only before the answer begins.
    let first = if attempts.is_one() { FIRST } else { longest };
    let fleet = &app.fleet;
    let params = &text.params;
    let ask =
        |call, prompt| async move { fleet.begin(&call, prompt, params, [longest, first]).await };
    match attempts.run(prompt, ask).await {
        Ok((generation, answered)) => {
            let events = events(head_of(&generation.id, &answered));
            let standing = grant.standing();
            let mut response = stream::response(generation, events, grant, permit);
            answer::add(&mut response, standing);
            Ok(answered.said(response))
        }
        Err(error) => Err(grant.failed(error)),
    }
}
