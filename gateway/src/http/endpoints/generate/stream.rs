//! The events of an answer that comes with its tokens.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    access::Tokens,
    fleet::{Generation, Next},
    http::governed::Grant,
    openai::{generate::output::Events, sse::PING},
};

/// How often a stream without news has a comment. Proxies close a connection on which nothing moves, few of them before
/// half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An answer under way. Dropped because the client left, it cancels its job, and what was reserved stays counted.
struct Answer {
    generation: Generation,
    events: Box<dyn Events>,
    /// `None` once the answer has ended.
    grant: Option<Grant>,
    has_begun: bool,
    _permit: OwnedSemaphorePermit,
}

/// The answer whose body is the events.
pub(super) fn response(
    generation: Generation,
    events: Box<dyn Events>,
    grant: Grant,
    permit: OwnedSemaphorePermit,
) -> Response {
    let answer =
        Answer { generation, events, grant: Some(grant), has_begun: false, _permit: permit };
    let body = stream::unfold(answer, |mut answer| async {
        let bytes = answer.next().await?;
        Some((Ok::<_, Infallible>(bytes), answer))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks nginx to pass each event on at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Answer {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            let begun = self.events.begin();
            if !begun.is_empty() {
                return Some(begun.into());
            }
        }
        loop {
            self.grant.as_ref()?;
            let events = match self.generation.next(KEEP_ALIVE).await {
                Ok(Next::Tokens(chunk)) => self.events.tokens(chunk),
                Ok(Next::Silence) => PING.to_owned(),
                Ok(Next::Ended(generated)) => {
                    let usage = generated.usage;
                    let tokens = Tokens { input: usage.input_tokens, output: usage.output_tokens };
                    if let Some(grant) = self.grant.take() {
                        grant.ended(tokens);
                    }
                    // One piece with the end, so that no client waits for the rest of it.
                    self.events.end(*generated)
                }
                Err(error) => {
                    let error = match self.grant.take() {
                        Some(grant) => grant.failed(error),
                        None => error,
                    };
                    self.events.fail(&error)
                }
            };
            if !events.is_empty() {
                return Some(events.into());
            }
        }
    }
}
