//! Retries: which back-off step a failed job waits for, and the message that goes there.

use std::time::Duration;

use forebay_schemas::{ErrorCode, JobError, names, topology::RETRY_STEPS};

use crate::{
    broker::{HeaderValue, Message, for_republish},
    rng,
};

/// The index of the step of [`RETRY_STEPS`] after which a job that failed in the attempt number `attempts` (from 1)
/// is tried again. `Err` with the error to answer with when it is not: `error` itself, or one that says that
/// `attempts_max` is reached.
pub fn step(error: JobError, attempts: u32, attempts_max: u32) -> Result<usize, JobError> {
    let Some(first) = error.code.first_retry_step() else { return Err(error) };
    if attempts >= attempts_max {
        return Err(exhausted(&error, attempts));
    }
    let step = (attempts.saturating_sub(1) as usize).max(first);
    Ok(step.min(RETRY_STEPS.len() - 1))
}

fn exhausted(last: &JobError, attempts: u32) -> JobError {
    let message = format!("tried {attempts} times; the last time: {last}");
    JobError { index: last.index, ..JobError::new(ErrorCode::AttemptsExhausted, message) }
}

/// The message as it is published to its step: the job is unchanged, its header counts `failures`.
pub fn message(original: &Message, step: usize, failures: u32) -> Message {
    let (name, delay_ms) = RETRY_STEPS[step.min(RETRY_STEPS.len() - 1)];
    let properties = for_republish(&original.properties);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(names::HEADER_ATTEMPTS.into(), HeaderValue::LongUInt(failures));
    // The queue's own limit is the whole step; the jitter keeps what failed together apart.
    let delay = Duration::from_millis(delay_ms).mul_f64(rng::uniform(0.5..=1.0));
    let properties = properties
        .with_headers(headers)
        .with_expiration(delay.as_millis().to_string().into())
        .with_delivery_mode(2);
    Message { exchange: names::retry_of_models(name), properties, ..original.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Headers, Properties};

    fn error(code: ErrorCode) -> JobError {
        JobError::new(code, "it broke").at(3)
    }

    #[test]
    fn a_failure_that_would_repeat_is_answered_at_once() {
        for code in [ErrorCode::InvalidRequest, ErrorCode::NumericalError, ErrorCode::Cancelled] {
            assert_eq!(step(error(code), 1, 5), Err(error(code)));
        }
    }

    #[test]
    fn a_passing_failure_climbs_the_steps_and_ends_exhausted() {
        for (attempt, expected) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
            assert_eq!(step(error(ErrorCode::Internal), attempt, 5), Ok(expected));
        }
        let last = step(error(ErrorCode::Internal), 5, 5).unwrap_err();
        assert_eq!((last.code, last.index), (ErrorCode::AttemptsExhausted, Some(3)));
        assert!(last.message.contains("5 times") && last.message.contains("it broke"), "{last}");
        assert_eq!(step(error(ErrorCode::Internal), 40, 50), Ok(4), "the last step stays");
    }

    #[test]
    fn memory_that_is_short_is_given_half_a_minute_at_least() {
        assert_eq!(step(error(ErrorCode::OutOfMemory), 1, 5), Ok(2));
        assert_eq!(step(error(ErrorCode::OutOfMemory), 4, 5), Ok(3));
    }

    #[test]
    fn the_message_keeps_its_publisher_s_headers_and_loses_its_deaths() {
        let mut headers = Headers::default();
        headers.insert("traceparent".into(), HeaderValue::LongString("00-ab".into()));
        headers.insert("x-death".into(), HeaderValue::FieldArray(Vec::new().into()));
        headers.insert(names::HEADER_ATTEMPTS.into(), HeaderValue::LongUInt(1));
        let properties = Properties::default()
            .with_headers(headers)
            .with_message_id("job".into())
            .with_user_id("another connection's user".into())
            .with_correlation_id("mine".into());
        let original = Message {
            exchange: names::JOBS.to_owned(),
            routing_key: "m.batch".to_owned(),
            properties,
            body: b"body".to_vec(),
        };
        let again = message(&original, 1, 2);
        assert_eq!(
            (again.exchange.as_str(), again.routing_key.as_str()),
            ("forebay.retry.5s.models", "m.batch")
        );
        assert_eq!(again.body, original.body);
        let sent = &again.properties;
        let kept = sent.headers().as_ref().unwrap().inner();
        assert_eq!(sent.message_id(), original.properties.message_id());
        assert_eq!(sent.correlation_id(), original.properties.correlation_id());
        let delay_ms: u64 = sent.expiration().as_ref().unwrap().as_str().parse().unwrap();
        assert!((2_500..=5_000).contains(&delay_ms), "{delay_ms}");
        assert_eq!(sent.user_id(), &None, "the broker accepts it from that user alone");
        assert!(kept.contains_key("traceparent") && !kept.contains_key("x-death"));
        assert_eq!(kept[names::HEADER_ATTEMPTS], HeaderValue::LongUInt(2));
    }
}
