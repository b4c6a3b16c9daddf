//! The disposition of a message that a service has taken: one closed set of what happens next to it.
//!
//! The stage that knows the ending makes a [`Disposition`]; [`Answerer::settle`](crate::answer::Answerer::settle)
//! alone carries it out. A message that never gets one (its worker died, lost its device or ran out of its grace
//! period) is given back to its queue: an [`Acker`] that is dropped does that, and so does a lost connection.

use forebay_schemas::{Job, JobError, Outcome};
use metrics::counter;

use crate::{
    broker::{Acker, Message},
    retry,
    ticket::Ticket,
};

/// Reports device time that goes to no job's usage, in microseconds: of an attempt that another one follows, or of a job
/// that had its record already.
pub(crate) fn uncounted_time(us: u64, reason: &'static str) {
    counter!("forebay_settle_uncounted_device_us_total", "reason" => reason).increment(us);
}

/// The ending of a message. Each one but [`Disposition::GiveBack`] ends with the acknowledgement, once the store or the
/// broker has confirmed what comes before it.
#[derive(Debug)]
pub enum Disposition {
    /// The outcome becomes the job's record in the store, unless there is one: the job succeeded, failed for good,
    /// expired or was cancelled. Then the message is acknowledged.
    Answer(Box<(Ticket, Outcome)>),
    /// The job has its record already: the message is only acknowledged.
    Acknowledge(Acker),
    /// The delivery is no longer this program's to settle: the broker delivers the message again.
    GiveBack(Acker),
    /// The job failed for a cause that may pass: its message is published to the back-off step, which brings it back.
    RetryLater {
        /// The job's ticket, with the message as it came.
        ticket: Box<Ticket>,
        /// An index of [`RETRY_STEPS`](forebay_schemas::topology::RETRY_STEPS).
        step: usize,
    },
    /// The message names no job to answer: it is published to the dead letters.
    DeadLetter {
        /// The message as it came, with the reason in a header, addressed to the dead letters.
        message: Box<Message>,
        /// Settles the delivery.
        acker: Acker,
        /// Says why to a publisher that waits for a reply.
        reply: Option<Box<Message>>,
    },
}

impl Disposition {
    /// The disposition of a job that had this outcome, in a fleet that tries a job at most `attempts_max` times.
    pub fn of(ticket: Ticket, mut outcome: Outcome, attempts_max: u32) -> Self {
        if let Some(error) = outcome.error.take() {
            match retry::step(error, ticket.attempts(), attempts_max) {
                Ok(step) => {
                    uncounted_time(outcome.usage.device_us, "retried");
                    return Self::RetryLater { ticket: Box::new(ticket), step };
                }
                Err(last) => outcome.error = Some(last),
            }
        }
        Self::Answer(Box::new((ticket, outcome)))
    }

    /// The disposition of a job that failed with `error` before it was computed.
    pub fn failed(job: &Job, ticket: Ticket, error: JobError, attempts_max: u32) -> Self {
        Self::of(ticket, Outcome::failed(job, error), attempts_max)
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{ContentType, ErrorCode};

    use super::*;
    use crate::broker::{Properties, Settlement};

    struct Unsettled;

    impl Settlement for Unsettled {
        fn ack(self: Box<Self>) -> bool {
            false
        }

        fn requeue(self: Box<Self>) -> bool {
            false
        }
    }

    fn ticket(failures: u32, deaths: u32) -> Ticket {
        Ticket {
            id: "job".parse().unwrap(),
            acker: Acker::new(Unsettled),
            content_type: ContentType::Json,
            failures,
            deaths,
            returned: false,
            result_ttl_s: 60,
            notify: None,
            reply_to: None,
            trace: None,
            message: Box::new(Message {
                exchange: String::new(),
                routing_key: "m.batch".into(),
                properties: Properties::default(),
                body: Vec::new(),
            }),
        }
    }

    /// The step of the next attempt, or the code of the answer.
    fn next(failures: u32, deaths: u32) -> Result<usize, ErrorCode> {
        let ticket = ticket(failures, deaths);
        let error = JobError::new(ErrorCode::Internal, "it broke");
        match Disposition::of(ticket, Outcome::refused("job".parse().unwrap(), error), 5) {
            Disposition::RetryLater { step, .. } => Ok(step),
            Disposition::Answer(answer) => Err(answer.1.error.unwrap().code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn workers_that_died_count_as_attempts_when_a_job_fails() {
        assert_eq!(next(0, 0), Ok(0));
        assert_eq!(next(3, 0), Ok(3));
        assert_eq!(next(0, 3), Ok(3));
        assert_eq!(next(1, 3), Err(ErrorCode::AttemptsExhausted));
        assert_eq!(next(0, 4), Err(ErrorCode::AttemptsExhausted));
    }
}
