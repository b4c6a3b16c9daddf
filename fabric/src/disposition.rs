//! The disposition of a message that a service has taken: one closed set of what happens next to it.
//!
//! The stage that knows the ending makes a [`Disposition`]; [`Answerer::settle`](crate::answer::Answerer::settle)
//! alone carries it out. A message that never gets one (its worker died, lost its device or ran out of its grace
//! period) is given back to its queue: an [`Acker`] that is dropped does that, and so does a lost connection.

use forebay_schemas::{Job, JobError, Outcome};

use crate::{
    broker::{Acker, Message},
    retry,
    ticket::Ticket,
};

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
    },
}

impl Disposition {
    /// The disposition of a job that had this outcome, in a fleet that tries a job at most `attempts_max` times.
    pub fn of(ticket: Ticket, mut outcome: Outcome, attempts_max: u32) -> Self {
        if let Some(error) = outcome.error.take() {
            match retry::step(error, ticket.attempts(), attempts_max) {
                Ok(step) => return Self::RetryLater { ticket: Box::new(ticket), step },
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
