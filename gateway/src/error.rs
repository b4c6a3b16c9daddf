//! [`ApiError`]: an answer that is an error, in the shape that OpenAI's clients read.

use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;

use crate::access::headers::{self, Header};

/// The request's own mistake: sending it again as it is won't help.
pub const INVALID_REQUEST: &str = "invalid_request_error";
/// A fault of the fleet.
pub const SERVER_ERROR: &str = "server_error";
/// A limit of the caller's tenant.
pub const RATE_LIMITED: &str = "rate_limit_error";
/// The budget of the caller's tenant.
pub const INSUFFICIENT_QUOTA: &str = "insufficient_quota";
/// The fleet can't take or do it now.
pub const UNAVAILABLE: &str = "service_unavailable";

/// An answer that is an error.
///
/// Clients print `message` and little else, so it has the field, what came, what was expected and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// The kind of error: one of the constants of this module.
    pub kind: &'static str,
    /// The error for a program.
    pub code: &'static str,
    /// The field at fault, where there is one.
    pub param: Option<String>,
    /// The error for a person.
    pub message: String,
    /// Whether and when the client is to try again.
    pub retry: Retry,
    /// How the caller's tenant stands with its limits, as headers.
    pub standing: Box<[Header]>,
}

/// The hint about trying again that goes with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// None: the status says it.
    ByStatus,
    /// `x-should-retry: false`, for statuses that clients try again although it is of no use.
    Never,
    /// `Retry-After` and `retry-after-ms`.
    After(Duration),
}

/// When a client may come back to a fleet that is full or away. Short: clients cut or ignore what is longer than some
/// seconds, and a cold start is waited for within the request.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        let standing = Box::default();
        Self { status, kind, code, param: None, message, retry: Retry::ByStatus, standing }
    }

    /// A mistake in the request, final for every client.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::mistake(StatusCode::BAD_REQUEST, "invalid_request", message).at(param)
    }

    /// A mistake with a status and a code of its own.
    pub fn mistake(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, INVALID_REQUEST, code, message.into())
    }

    /// A fault of the fleet, which the caller can do nothing about.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal", message.into())
    }

    /// The fleet can't take or do it now: the client may come back soon.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = Self::new(status, UNAVAILABLE, code, message.into());
        Self { retry: Retry::After(RETRY_AFTER), ..error }
    }

    /// A request of whose kind the tenant has had enough for now.
    pub fn limited(code: &'static str, message: String, standing: Vec<Header>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, RATE_LIMITED, code, message);
        Self { standing: standing.into(), ..error }
    }

    /// Says that the limit is the tenant's budget: trying again is of no use this month.
    #[must_use]
    pub fn over_budget(self) -> Self {
        Self { kind: INSUFFICIENT_QUOTA, retry: Retry::Never, ..self }
    }

    /// Attributes the error to a field of the request.
    #[must_use]
    pub fn at(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// Asks clients not to try again.
    #[must_use]
    pub fn final_for_all(self) -> Self {
        Self { retry: Retry::Never, ..self }
    }

    /// The headers that say whether and when to try again.
    pub fn retry_headers(&self) -> Vec<Header> {
        match self.retry {
            Retry::ByStatus => Vec::new(),
            Retry::Never => headers::retry(None),
            Retry::After(pause) => headers::retry(Some(pause.as_millis() as u64)),
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> Vec<u8> {
        let error = Fields {
            message: &self.message,
            kind: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        };
        // Writing texts fails on no value that they can have.
        serde_json::to_vec(&Body { error }).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_four_fields_that_every_client_reads() {
        let error = ApiError::invalid("input", "`input` is missing: send a text");
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "`input` is missing: send a text",
            "type": "invalid_request_error",
            "param": "input",
            "code": "invalid_request",
        }});
        assert_eq!(body, expected);
        let without = ApiError::internal("x").body();
        assert!(String::from_utf8(without).unwrap().contains("\"param\":null"));
    }

    #[test]
    fn a_client_that_may_come_back_reads_when_in_both_headers() {
        let headers = ApiError::unavailable("overloaded", "full").retry_headers();
        assert_eq!(
            headers,
            [("retry-after", "2".to_owned()), ("retry-after-ms", "2000".to_owned())]
        );
        let soon = ApiError {
            retry: Retry::After(Duration::from_millis(50)),
            ..ApiError::unavailable("overloaded", "full")
        };
        assert_eq!(soon.retry_headers()[0].1, "1");
        assert_eq!(ApiError::invalid("a", "b").retry_headers(), []);
        let last = ApiError::internal("x").final_for_all();
        assert_eq!(last.retry_headers(), [("x-should-retry", "false".to_owned())]);
    }
}
