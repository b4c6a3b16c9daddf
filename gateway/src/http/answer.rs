//! Answers: JSON bodies, written in one piece.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{access::headers::Header, error::ApiError};

/// An answer with a JSON body that is there already.
pub fn bytes(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An answer with this value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => bytes(status, body),
        Err(error) => unwritable(&error).into_response(),
    }
}

/// A successful answer whose body was written by `openai`, `rerank` or `tei`.
pub fn written(body: serde_json::Result<Vec<u8>>) -> Result<Response, ApiError> {
    body.map(|body| bytes(StatusCode::OK, body)).map_err(|error| unwritable(&error))
}

/// Adds headers to an answer.
pub fn add(response: &mut Response, headers: Vec<Header>) {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn unwritable(error: &serde_json::Error) -> ApiError {
    tracing::warn!(%error, "an answer can't be written");
    ApiError::internal("the answer can't be written").final_for_all()
}

/// The code of an answer that is an error, for those who count it.
#[derive(Debug, Clone, Copy)]
pub struct FailedAs(pub &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = bytes(self.status, self.body());
        response.extensions_mut().insert(FailedAs(self.code));
        add(&mut response, self.retry_headers());
        add(&mut response, self.standing.into_vec());
        response
    }
}
