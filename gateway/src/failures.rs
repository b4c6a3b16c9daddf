//! The fleet's failures as answers: which status, type and code each of them has.
//!
//! Clients retry 408, 409, 429 and everything from 500 on, so a status from there on stands only for what may pass, or
//! says that trying again is of no use.

use std::time::Duration;

use axum::http::StatusCode;
use forebay_client::{SubmitError, WaitError};
use forebay_schemas::{ErrorCode, JobError};

use crate::error::ApiError;

/// The answer to a job that ended with `error`.
pub fn of_job(error: &JobError) -> ApiError {
    let message = error.message.clone();
    let code = error.code.as_str();
    let mistake = |status| {
        let answer = ApiError::mistake(status, code, message.clone());
        match field_of(&message) {
            Some(field) => answer.at(field),
            None => answer,
        }
    };
    let fault = || ApiError { code, ..ApiError::internal(message.clone()) };
    match error.code {
        ErrorCode::InvalidRequest | ErrorCode::TaskNotSupported | ErrorCode::InputTooLong => {
            mistake(StatusCode::BAD_REQUEST)
        }
        ErrorCode::ModelNotFound => mistake(StatusCode::NOT_FOUND).at("model"),
        ErrorCode::PayloadTooLarge => mistake(StatusCode::PAYLOAD_TOO_LARGE),
        // The model has no answer for this text and never will: final for every client.
        ErrorCode::NumericalError => mistake(StatusCode::UNPROCESSABLE_ENTITY),
        ErrorCode::Cancelled => mistake(StatusCode::CONFLICT).final_for_all(),
        ErrorCode::DeadlineExceeded => ApiError::unavailable(code, message),
        // It failed five times before, or its workers are of another version.
        ErrorCode::AttemptsExhausted | ErrorCode::OutOfMemory | ErrorCode::UnsupportedVersion => {
            fault().final_for_all()
        }
        ErrorCode::Internal => fault(),
    }
}

/// The field that the message begins with, as the wire's own refusals do.
fn field_of(message: &str) -> Option<&str> {
    let name = message.strip_prefix('`')?.split('`').next()?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.[]".contains(&b));
    name.split(['[', '.']).next().filter(|top| is_name && !top.is_empty())
}

/// The answer to a request whose job could not be submitted.
pub fn of_submit(error: &SubmitError) -> ApiError {
    match error {
        SubmitError::Invalid { error, .. } => of_job(error),
        SubmitError::UnknownModel { model, known } => no_model(model.as_str(), known),
        SubmitError::QueueFull { model, .. } => {
            let message = format!("the queue of `{model}` is full: try again soon");
            logged(error, ApiError::unavailable("overloaded", message))
        }
        SubmitError::Blocked { .. } => {
            let message = "the fleet takes no work at present: try again soon";
            logged(error, ApiError::unavailable("overloaded", message))
        }
        SubmitError::Unconfirmed { .. } | SubmitError::Broker(_) => logged(error, unreachable()),
        SubmitError::Codec { .. } | SubmitError::Forbidden { .. } => {
            let message = "the gateway can't hand the request on; its log says why";
            logged(error, ApiError::internal(message).final_for_all())
        }
    }
}

/// The answer to a request whose job was not confirmed for as long as its caller waits.
pub fn unreachable() -> ApiError {
    let message = "the fleet can't be reached at present: try again soon";
    ApiError::unavailable("unavailable", message)
}

/// The answer to a request for which no result could be read.
pub fn of_wait(error: &WaitError) -> ApiError {
    match error {
        WaitError::Timeout { after, .. } => logged(error, too_late(*after)),
        WaitError::Store(_) => {
            let message = "the fleet's results can't be reached at present: try again soon";
            logged(error, ApiError::unavailable("unavailable", message))
        }
        WaitError::Unreadable { .. } => {
            logged(error, ApiError::internal("the result can't be read").final_for_all())
        }
    }
}

/// The answer to a request that had no result in its time.
pub fn too_late(after: Duration) -> ApiError {
    let message = format!(
        "there was no result within {:.1} s: the model is starting, busy, or behind an endpoint that fails; try again",
        after.as_secs_f64()
    );
    ApiError::unavailable("deadline_exceeded", message)
}

/// The answer to a request for a model that the fleet does not have.
pub fn no_model(model: &str, known: &[String]) -> ApiError {
    let shown: String = model.chars().take(80).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!("there is no model `{shown}`; there are: {known}");
    ApiError::mistake(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
}

/// Logs a failure whose details are the operator's and not the caller's. What is for want of room or time is counted by
/// its status, and a line for each would come in floods.
fn logged(error: &dyn std::error::Error, answer: ApiError) -> ApiError {
    let status = answer.status.as_u16();
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::debug!(%error, status, "a request failed");
    } else {
        tracing::warn!(%error, status, "a request failed");
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Retry;

    const CODES: [ErrorCode; 12] = [
        ErrorCode::InvalidRequest,
        ErrorCode::UnsupportedVersion,
        ErrorCode::ModelNotFound,
        ErrorCode::TaskNotSupported,
        ErrorCode::InputTooLong,
        ErrorCode::PayloadTooLarge,
        ErrorCode::DeadlineExceeded,
        ErrorCode::Cancelled,
        ErrorCode::AttemptsExhausted,
        ErrorCode::NumericalError,
        ErrorCode::OutOfMemory,
        ErrorCode::Internal,
    ];

    fn answer(code: ErrorCode) -> ApiError {
        of_job(&JobError::new(code, "x"))
    }

    #[test]
    fn every_code_of_the_wire_is_the_code_of_its_answer() {
        for code in CODES {
            assert_eq!(answer(code).code, code.as_str());
        }
    }

    #[test]
    fn a_mistake_of_the_caller_is_never_the_servers() {
        for code in CODES {
            let status = answer(code).status.as_u16();
            let is_callers = !matches!(
                code,
                ErrorCode::DeadlineExceeded
                    | ErrorCode::AttemptsExhausted
                    | ErrorCode::OutOfMemory
                    | ErrorCode::UnsupportedVersion
                    | ErrorCode::Internal
            );
            assert_eq!(status < 500, is_callers, "{code}: {status}");
        }
    }

    #[test]
    fn what_will_not_pass_is_not_retried() {
        for code in CODES {
            let answer = answer(code);
            let is_retried = [408, 409, 429].contains(&answer.status.as_u16())
                || answer.status.is_server_error();
            let may_pass = matches!(code, ErrorCode::DeadlineExceeded | ErrorCode::Internal);
            let retries = is_retried && answer.retry != Retry::Never;
            assert_eq!(retries, may_pass, "{code}: {answer:?}");
        }
    }

    #[test]
    fn the_field_is_taken_from_the_words_of_the_wire() {
        assert_eq!(field_of("`input` is empty"), Some("input"));
        assert_eq!(field_of("`messages[3]` has no `role`"), Some("messages"));
        assert_eq!(field_of("no `input` here"), None);
        assert_eq!(field_of("`not a name` x"), None);
    }

    #[test]
    fn a_model_that_is_not_there_is_answered_with_those_that_are() {
        let answer = no_model("gpt-4o", &["a".into(), "b".into()]);
        assert_eq!((answer.status.as_u16(), answer.code), (404, "model_not_found"));
        assert!(answer.message.ends_with("there are: a, b"), "{answer}");
    }
}
