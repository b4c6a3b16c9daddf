//! Answers that are written bit by bit: while one is under way its connection is not idle, however long it pauses.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use hyper::body::{Body as _, Frame, SizeHint};

use super::activity::Activity;

/// Follows an answer in its connection's activity: one whose length is not known yet is a stream.
pub fn follow(answer: Response, activity: &Arc<Activity>) -> Response {
    if answer.body().size_hint().exact().is_some() {
        activity.answered();
        return answer;
    }
    activity.streams();
    answer.map(|body| Body::new(Streamed { body, activity: activity.clone() }))
}

/// The body of a stream.
struct Streamed {
    body: Body,
    activity: Arc<Activity>,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.activity.answered();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
