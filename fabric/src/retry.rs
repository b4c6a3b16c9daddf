//! What becomes of a job that failed: tried again after a back-off step, or given up.

use std::time::Duration;

use forebay_schemas::{ErrorCode, Intent, JobError, names, topology::RETRY_STEPS};

use crate::{
    broker::{HeaderValue, Message, for_republish},
    dice,
};

/// "Later" begins at this step: half a minute.
const LATER: usize = 2;

/// What is to be done with a job that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This is its answer.
    Answer(JobError),
    /// It is tried again after this step of [`RETRY_STEPS`].
    Again(usize),
}

/// Decides about a failure of the attempt number `attempts` (from 1) of at most `attempts_max`.
pub fn next(error: JobError, attempts: u32, attempts_max: u32) -> Next {
    let first = match error.code.intent() {
        Intent::GiveUp => return Next::Answer(error),
        Intent::TryAgain => 0,
        Intent::TryAgainLater => LATER,
    };
    if attempts >= attempts_max {
        return Next::Answer(exhausted(&error, attempts));
    }
    let step = (attempts.saturating_sub(1) as usize).max(first);
    Next::Again(step.min(RETRY_STEPS.len() - 1))
}

fn exhausted(last: &JobError, attempts: u32) -> JobError {
    let message = format!("tried {attempts} times; the last time: {last}");
    JobError { index: last.index, ..JobError::new(ErrorCode::AttemptsExhausted, message) }
}

/// The message as it goes to its step: the same job, with one more failure to its name.
pub fn message(original: &Message, step: usize, failures: u32) -> Message {
    let (name, delay_ms) = RETRY_STEPS[step.min(RETRY_STEPS.len() - 1)];
    let properties = for_republish(&original.properties);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(names::HEADER_ATTEMPTS.into(), HeaderValue::LongUInt(failures));
    // The queue's own limit is the whole step; the jitter keeps what failed together apart.
    let delay = Duration::from_millis(delay_ms).mul_f64(dice::throw(0.5..=1.0));
    let properties = properties
        .with_headers(headers)
        .with_expiration(delay.as_millis().to_string().into())
        .with_delivery_mode(2);
    Message { exchange: names::retry(name), properties, ..original.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Headers, Properties};

    fn error(code: ErrorCode) -> JobError {
        JobError::new(code, "it broke").at(3)
    }

    #[test]
    fn what_would_fail_again_is_answered_at_once() {
        for code in [ErrorCode::InvalidRequest, ErrorCode::NumericalError, ErrorCode::Cancelled] {
            assert_eq!(next(error(code), 1, 5), Next::Answer(error(code)));
        }
    }

    #[test]
    fn a_passing_failure_climbs_the_steps_and_ends_exhausted() {
        for (attempt, step) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
            assert_eq!(next(error(ErrorCode::Internal), attempt, 5), Next::Again(step));
        }
        let Next::Answer(last) = next(error(ErrorCode::Internal), 5, 5) else { panic!("again") };
        assert_eq!((last.code, last.index), (ErrorCode::AttemptsExhausted, Some(3)));
        assert!(last.message.contains("5 times") && last.message.contains("it broke"), "{last}");
        assert_eq!(next(error(ErrorCode::Internal), 40, 50), Next::Again(4), "the last step stays");
    }

    #[test]
    fn memory_that_is_short_is_given_half_a_minute_at_least() {
        assert_eq!(next(error(ErrorCode::OutOfMemory), 1, 5), Next::Again(2));
        assert_eq!(next(error(ErrorCode::OutOfMemory), 4, 5), Next::Again(3));
    }

    #[test]
    fn the_message_keeps_what_its_publisher_said_and_loses_its_deaths() {
        let mut headers = Headers::default();
        headers.insert("traceparent".into(), HeaderValue::LongString("00-ab".into()));
        headers.insert("x-death".into(), HeaderValue::FieldArray(Vec::new().into()));
        headers.insert(names::HEADER_ATTEMPTS.into(), HeaderValue::LongUInt(1));
        let properties = Properties::default()
            .with_headers(headers)
            .with_message_id("job".into())
            .with_user_id("somebody else than this connection's".into())
            .with_correlation_id("mine".into());
        let (exchange, routing_key) = (names::JOBS.to_owned(), "m.batch".to_owned());
        let original = Message { exchange, routing_key, properties, body: b"body".to_vec() };
        let again = message(&original, 1, 2);
        assert_eq!(
            (again.exchange.as_str(), again.routing_key.as_str()),
            ("forebay.retry.5s", "m.batch")
        );
        assert_eq!(again.body, original.body);
        let (told, kept) =
            (&again.properties, again.properties.headers().as_ref().unwrap().inner());
        assert_eq!(told.message_id(), original.properties.message_id());
        assert_eq!(told.correlation_id(), original.properties.correlation_id());
        let delay_ms: u64 = told.expiration().as_ref().unwrap().as_str().parse().unwrap();
        assert!((2_500..=5_000).contains(&delay_ms), "{delay_ms}");
        assert_eq!(told.user_id(), &None, "the broker takes it from that user alone");
        assert!(kept.contains_key("traceparent") && !kept.contains_key("x-death"));
        assert_eq!(kept[names::HEADER_ATTEMPTS], HeaderValue::LongUInt(2));
    }
}
