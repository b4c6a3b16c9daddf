//! `GET /v1/jobs/{id}/events`: a job's states, and the tokens that it generates, as server-sent events, until it has
//! ended.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use forebay_client::{Following, JobId, Outcome, Progress, TokenChunk, WaitError};
use futures_util::stream;
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::jobs::{found, job_of};
use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    failures,
    http::{app::App, path_id::PathId},
    openai::sse::{self, DONE, PING},
};

/// How often a stream without news has a comment. Proxies close a connection on which nothing moves, few of them before
/// half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The number of tokens that a client has that comes back, which the events' ids are.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /v1/jobs/{id}/events` in the document.
pub fn described() -> Operation {
    Operation::keyed(Scope::Read, "followJob", Tag::Jobs, "A job's states as they come")
        .describe(
            "Server-sent events: each `data` is JSON, `PendingJob` while there is no record, then the record or an \
             error; the last is `[DONE]`. Tokens of a job that asks for them by `stream` come in between, in \
             events with an `id`. A stream ends after `gateway.stream_wait_ms_max` also without a record.",
        )
        .parameter("JobId")
        .parameter("LastEventId")
        .answers_text_with("text/event-stream", "The events.", &["x-accel-buffering"])
        .errors(&[400, 404, 500])
}

/// The states of a job, each as an event: first the one that it has, last its record.
pub async fn follow(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = job_of(&app, &headers, Scope::Read, &id).await?;
    let had = last_event_id(&headers)?;
    let Ok(permit) = app.streams.clone().try_acquire_owned() else {
        let message = "the gateway has as many streams of events as it may: try again soon, or ask for the job";
        return Err(ApiError::unavailable("overloaded", message));
    };
    let first = match found(&app, &id).await? {
        Some(outcome) => Step::Last(Box::new(outcome)),
        // One that comes back has seen it.
        None if had.is_some() => Step::Wait,
        None => Step::First,
    };
    let longest = Duration::from_millis(app.config.stream_wait_ms_max);
    let until = Instant::now() + longest;
    // It is dropped before it gives up by itself.
    let following = app.fleet.client.follow(&id, had.unwrap_or(0), longest + 4 * KEEP_ALIVE);
    let events = Events { app, id, until, step: first, following, _permit: permit };
    let body = stream::unfold(events, |mut events| async {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks nginx to pass each event on at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The next thing to send.
enum Step {
    /// That there is no record yet.
    First,
    /// Whatever comes first: tokens, the record, a comment, or the end of time.
    Wait,
    /// The record.
    Last(Box<Outcome>),
    /// Nothing more.
    Ended,
}

/// One stream.
struct Events {
    app: Arc<App>,
    id: JobId,
    /// When it ends in any case.
    until: Instant,
    step: Step,
    following: Following,
    _permit: OwnedSemaphorePermit,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.step, Step::Wait) {
            Step::First => Some(sse::event(&json!({"id": self.id, "state": "pending"})).into()),
            Step::Wait => Some(self.wait().await),
            Step::Last(outcome) => Some(self.end(sse::event(&outcome))),
            Step::Ended => {
                self.step = Step::Ended;
                None
            }
        }
    }

    /// Waits for tokens or the record as long as a stream may be silent.
    async fn wait(&mut self) -> Bytes {
        let silent = KEEP_ALIVE.min(self.until.saturating_duration_since(Instant::now()));
        let progress = timeout_at(Instant::now() + silent, self.following.next());
        let Some(progress) = self.app.stop.run_until_cancelled(progress).await else {
            // The client comes back, to another replica, and begins with the state of then.
            return self.end(String::new());
        };
        match progress {
            Ok(Ok(Progress::Tokens(chunk))) => self.tokens(&chunk).into(),
            Ok(Ok(Progress::Ended(outcome))) => self.end(sse::event(&outcome)),
            Err(_) | Ok(Err(WaitError::Timeout { .. })) => {
                if Instant::now() < self.until {
                    PING.into()
                } else {
                    self.end(String::new())
                }
            }
            Ok(Err(error @ (WaitError::Unreadable { .. } | WaitError::Store(_)))) => {
                self.end(sse::of_error(&failures::of_wait(&error)))
            }
        }
    }

    /// Tokens, with the number of them up to here: a client that comes back says it, and gets those after it.
    fn tokens(&self, chunk: &TokenChunk) -> String {
        sse::numbered(
            chunk.next().into(),
            &json!({"id": self.id, "state": "running", "tokens": chunk}),
        )
    }

    /// The end of the stream, after a last event: one piece, so that no client waits for the rest of it.
    fn end(&mut self, mut last: String) -> Bytes {
        self.step = Step::Ended;
        last.push_str(DONE);
        last.into()
    }
}

/// The number of tokens that a client has that comes back.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u32>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    // A client that has had no event with an id may send an empty one.
    if text.is_empty() && value.is_empty() {
        return Ok(Some(0));
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).map(Some).ok_or_else(|| {
        let message =
            "`Last-Event-ID` is none of this stream's: send the id of the last event that came";
        ApiError::invalid("Last-Event-ID", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_comes_back_says_how_many_tokens_it_has() {
        let read = |value: &'static str| {
            let headers = [(LAST_EVENT_ID, HeaderValue::from_static(value))];
            last_event_id(&headers.into_iter().collect())
        };
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        assert_eq!(read("17").unwrap(), Some(17));
        assert_eq!(read("").unwrap(), Some(0));
        for wrong in ["-1", "+1", "x", "4294967296", "1.0"] {
            assert_eq!(read(wrong).unwrap_err().param.as_deref(), Some("Last-Event-ID"), "{wrong}");
        }
    }
}
