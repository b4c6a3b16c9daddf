//! Reads the body of a request within its limits: of its size, of its time, and of all bodies together.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::app::{App, BYTES_PER_PERMIT};
use crate::error::ApiError;

/// A body, and the right to hold as many bytes.
#[derive(Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// To be kept for as long as the request holds what was read of the bytes.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// How many bytes of a body that is refused are read and dropped. A client that still sends does not read its answer,
/// and takes the end of the connection for a fault that it retries.
const DROPPED_BYTES_MAX: usize = 64 << 20;

/// Reads a body whole.
pub async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Held, ApiError> {
    let bytes_max = app.config.body_bytes_max;
    let wait_ms = app.config.body_wait_ms_max;
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced: Option<usize> = announced.and_then(|length| length.parse().ok());
    let mut held = Held { bytes: Vec::new(), permit: None };
    let mut refused = announced.filter(|length| *length > bytes_max).map(|_| too_large(bytes_max));
    let mut chunks = body.into_data_stream();
    let mut dropped = 0_usize;
    loop {
        let chunk = match (timeout_at(deadline, chunks.next()).await, refused.take()) {
            (Err(_) | Ok(None), Some(error)) => return Err(error),
            (Err(_), None) => return Err(too_slow(wait_ms)),
            (Ok(None), None) => return Ok(held),
            (Ok(Some(Err(error))), _) => return Err(broken(&error)),
            (Ok(Some(Ok(chunk))), None) => chunk,
            (Ok(Some(Ok(chunk))), Some(error)) => {
                dropped = dropped.saturating_add(chunk.len());
                if dropped > DROPPED_BYTES_MAX {
                    return Err(error);
                }
                refused = Some(error);
                continue;
            }
        };
        let bytes = held.bytes.len().saturating_add(chunk.len());
        let room = if bytes > bytes_max {
            Err(too_large(bytes_max))
        } else {
            account(app, &mut held, bytes)
        };
        match room {
            Ok(()) => held.bytes.extend_from_slice(&chunk),
            Err(error) => {
                held = Held { bytes: Vec::new(), permit: None };
                refused = Some(error);
            }
        }
    }
}

/// Reads a body, on another thread if it is long, and returns what was read of it with the right to hold it.
pub async fn parsed<T: Send + 'static>(
    app: &App,
    held: Held,
    parse: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Option<OwnedSemaphorePermit>), ApiError> {
    // The bytes stay accounted for also when the caller leaves while they are read.
    let Held { bytes, permit } = held;
    let length = bytes.len();
    let parse = move || parse(&bytes).map(|parsed| (parsed, permit));
    app.long_work.run(length, parse).await?
}

/// Looks into a body that is read later, where that holds up no other request.
pub async fn peeked<T: Send + 'static>(
    app: &App,
    held: Held,
    look: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<(T, Held), ApiError> {
    let length = held.bytes.len();
    let look = move || (look(&held.bytes), held);
    app.long_work.run(length, look).await
}

/// Takes as many permits as `bytes` need. It never waits: two bodies that each wait for the rest would wait for ever.
fn account(app: &App, held: &mut Held, bytes: usize) -> Result<(), ApiError> {
    let have = held.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = bytes.div_ceil(BYTES_PER_PERMIT).saturating_sub(have);
    if more == 0 {
        return Ok(());
    }
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    let Ok(permit) = app.held.clone().try_acquire_many_owned(more) else {
        let message = "the gateway holds as many bytes of requests as it may: try again soon";
        return Err(ApiError::unavailable("overloaded", message));
    };
    match &mut held.permit {
        Some(before) => before.merge(permit),
        none => *none = Some(permit),
    }
    Ok(())
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!(
        "the body has more than {bytes_max} bytes, which is the limit: send several requests"
    );
    ApiError::mistake(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
}

fn too_slow(wait_ms: u64) -> ApiError {
    let message = format!("the body did not come within {wait_ms} ms: send it again");
    ApiError::mistake(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

fn broken(error: &axum::Error) -> ApiError {
    ApiError::mistake(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        format!("the body broke off: {error}"),
    )
}
