//! Why a call gave no answer, and what the job makes of it. Pure.

use forebay_schemas::{ErrorCode, JobError};
use serde_json::Value;

/// The longest message of an endpoint that is handed on, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The request is wrong, for this endpoint at least: so it will be again.
    Refused(JobError),
    /// The endpoint has had enough for now. It is well.
    Limited,
    /// The endpoint, or the way to it, fails.
    Passing(String),
    /// The call was given less time than it may take, for the sake of its job's own deadline.
    OutOfTime,
}

/// Codes of the wire by their names: another fleet's gateway answers with them.
const CODES: [ErrorCode; 5] = [
    ErrorCode::InputTooLong,
    ErrorCode::TaskNotSupported,
    ErrorCode::ModelNotFound,
    ErrorCode::PayloadTooLarge,
    ErrorCode::NumericalError,
];
/// Codes of other endpoints for a text that is too long.
const TOO_LONG: [&str; 2] = ["context_length_exceeded", "string_above_max_length"];

/// The failure that an answer of this status is. `retries` is what the endpoint says about trying again.
pub fn of_status(status: u16, body: &[u8], retries: Option<bool>) -> Failure {
    let Said { message, code } = said(body);
    let shown = if message.is_empty() { String::new() } else { format!(": {message}") };
    let refused = |code| {
        Failure::Refused(JobError::new(code, format!("the endpoint answers with {status}{shown}")))
    };
    let known = code.as_deref().and_then(|code| CODES.into_iter().find(|c| c.as_str() == code));
    let is_too_long = code.as_deref().is_some_and(|code| TOO_LONG.contains(&code));
    match status {
        429 if retries != Some(false) && code.as_deref() != Some("insufficient_quota") => {
            Failure::Limited
        }
        400 | 422 if is_too_long => refused(ErrorCode::InputTooLong),
        400 | 404 | 413 | 422 if known.is_some() => refused(known.unwrap_or(ErrorCode::Internal)),
        404 => refused(ErrorCode::ModelNotFound),
        413 => refused(ErrorCode::PayloadTooLarge),
        400 | 405 | 406 | 410..=412 | 414..=424 => refused(ErrorCode::InvalidRequest),
        // A key is put right by a person: the jobs wait.
        401 | 403 => {
            Failure::Passing(format!("the endpoint refuses the API key with {status}{shown}"))
        }
        _ => Failure::Passing(format!("the endpoint answers with {status}{shown}")),
    }
}

struct Said {
    message: String,
    code: Option<String>,
}

/// Message and code of an error's body, in the shapes of OpenAI (`error.message`), TEI (`error`), Cohere (`message`)
/// and `FastAPI` (`detail`).
fn said(body: &[u8]) -> Said {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = [&value["error"]["message"], &value["error"], &value["message"], &value["detail"]];
    let message = texts.into_iter().find_map(Value::as_str).unwrap_or_default();
    let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let code = value["error"]["code"].as_str().or_else(|| value["code"].as_str());
    Said { message, code: code.map(ToOwned::to_owned) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, body: &Value) -> Failure {
        of_status(status, body.to_string().as_bytes(), None)
    }

    fn code(failure: &Failure) -> Option<ErrorCode> {
        match failure {
            Failure::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    #[test]
    fn a_mistake_ends_the_job_with_its_code() {
        let body = |code: &str| json!({"error": {"message": "m", "code": code}});
        for (status, said, expected) in [
            (400, "", ErrorCode::InvalidRequest),
            (400, "context_length_exceeded", ErrorCode::InputTooLong),
            (400, "input_too_long", ErrorCode::InputTooLong),
            (400, "task_not_supported", ErrorCode::TaskNotSupported),
            (404, "model_not_found", ErrorCode::ModelNotFound),
            (404, "", ErrorCode::ModelNotFound),
            (413, "", ErrorCode::PayloadTooLarge),
            (422, "", ErrorCode::InvalidRequest),
            (422, "numerical_error", ErrorCode::NumericalError),
        ] {
            assert_eq!(code(&of(status, &body(said))), Some(expected), "{status} {said}");
        }
        let Failure::Refused(error) = of(400, &body("")) else { panic!("it is final") };
        assert_eq!(error.message, "the endpoint answers with 400: m");
    }

    #[test]
    fn what_may_pass_is_no_answer() {
        for status in [301, 401, 402, 403, 408, 409, 425, 500, 502, 503, 504, 529] {
            let failure = of(status, &json!({"error": "x"}));
            assert!(matches!(failure, Failure::Passing(_)), "{status}: {failure:?}");
        }
        assert_eq!(of(429, &json!({})), Failure::Limited);
        let spent = json!({"error": {"message": "pay", "code": "insufficient_quota"}});
        assert!(matches!(of(429, &spent), Failure::Passing(_)));
        assert!(matches!(of_status(429, b"", Some(false)), Failure::Passing(_)));
    }

    #[test]
    fn a_body_of_any_shape_is_read_for_its_message_within_bounds() {
        for body in [json!({"error": "m"}), json!({"message": "m"}), json!({"detail": "m"})] {
            assert_eq!(said(body.to_string().as_bytes()).message, "m");
        }
        assert_eq!(said(b"<html>").message, "");
        let long = json!({"error": "x".repeat(10_000)}).to_string();
        assert_eq!(said(long.as_bytes()).message.len(), MESSAGE_CHARS_MAX);
    }
}
