//! `GET /v1/jobs/{id}/events`: a job's states as server-sent events, until it has ended.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use forebay_client::{JobId, Outcome, WaitError};
use futures_util::stream;
use serde::Serialize;
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
};

/// How often a stream without news has a comment. Proxies close a connection on which nothing moves, few of them before
/// half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PING: &str = ": ping\n\n";
/// The end of every stream, as clients of OpenAI's API know it.
const DONE: &str = "data: [DONE]\n\n";

/// `GET /v1/jobs/{id}/events` in the document.
pub fn described() -> Operation {
    Operation::keyed(Scope::Read, "followJob", Tag::Jobs, "A job's states as they come")
        .describe(
            "Server-sent events: each `data` is JSON, `PendingJob` while there is no record, then the record or an \
             error; the last is `[DONE]`. A stream ends after `gateway.stream_wait_ms_max` also without a record.",
        )
        .parameter("JobId")
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
    let Ok(permit) = app.streams.clone().try_acquire_owned() else {
        let message = "the gateway has as many streams of events as it may: try again soon, or ask for the job";
        return Err(ApiError::unavailable("overloaded", message));
    };
    let first = match found(&app, &id).await? {
        Some(outcome) => Step::Last(Box::new(outcome)),
        None => Step::First,
    };
    let until = Instant::now() + Duration::from_millis(app.config.stream_wait_ms_max);
    let events = Events { app, id, until, step: first, _permit: permit };
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
    /// Whatever comes first: the record, a comment, or the end of time.
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
    _permit: OwnedSemaphorePermit,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.step, Step::Wait) {
            Step::First => Some(event(&json!({"id": self.id, "state": "pending"})).into()),
            Step::Wait => Some(self.wait().await),
            Step::Last(outcome) => Some(self.end(event(&outcome))),
            Step::Ended => {
                self.step = Step::Ended;
                None
            }
        }
    }

    /// Waits for the record as long as a stream may be silent.
    async fn wait(&mut self) -> Bytes {
        let silent = KEEP_ALIVE.min(self.until.saturating_duration_since(Instant::now()));
        // The outer time-out bounds the reading of a record too.
        let outcome = self.app.fleet.client.wait(&self.id, silent);
        let outcome = timeout_at(Instant::now() + 2 * KEEP_ALIVE, outcome);
        let Some(outcome) = self.app.stop.run_until_cancelled(outcome).await else {
            // The client comes back, to another replica, and begins with the state of then.
            return self.end(String::new());
        };
        match outcome {
            Ok(Ok(outcome)) => self.end(event(&outcome)),
            Err(_) | Ok(Err(WaitError::Timeout { .. })) => {
                if Instant::now() < self.until {
                    PING.into()
                } else {
                    self.end(String::new())
                }
            }
            Ok(Err(error @ (WaitError::Unreadable { .. } | WaitError::Store(_)))) => {
                let error = failures::of_wait(&error);
                let body = String::from_utf8_lossy(&error.body()).into_owned();
                self.end(format!("data: {body}\n\n"))
            }
        }
    }

    /// The end of the stream, after a last event: one piece, so that no client waits for the rest of it.
    fn end(&mut self, mut last: String) -> Bytes {
        self.step = Step::Ended;
        last.push_str(DONE);
        last.into()
    }
}

/// One event: JSON has no line breaks outside texts, and writes those within texts as `\n`.
fn event(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => format!("data: {json}\n\n"),
        Err(error) => {
            tracing::warn!(%error, "an event can't be written");
            let body = ApiError::internal("the record can't be written").body();
            format!("data: {}\n\n", String::from_utf8_lossy(&body))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_texts_have() {
        let written = event(&json!({"text": "a\nb\r\ndata: [DONE]\n\n"}));
        assert_eq!(written.matches('\n').count(), 2, "{written:?}");
        assert!(written.starts_with("data: {") && written.ends_with("}\n\n"), "{written:?}");
    }
}
