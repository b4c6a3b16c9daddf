//! Settles what no worker will: jobs for models that this fleet does not have, jobs that expired in their queue, and
//! jobs that the broker gave up on, once no worker has them ([`GivenUp`]).

use std::sync::Arc;

use forebay_fabric::{
    answer::Answerer,
    broker::{Delivery, Subscription, Window},
    death::{Death, Reason},
    disposition::Disposition,
    intake,
};
use forebay_schemas::{ErrorCode, JobError, Limits};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::given_up::{GivenUp, Waiting};

/// Messages of one queue that are held at once: those that wait for a worker's answer must not hold up the others.
const PREFETCH: u16 = 1_024;
/// The most bytes that they may take.
const HELD_BYTES_MAX: u64 = 64 << 20;

/// The window of a queue that a [`Settler`] answers.
pub fn window() -> Arc<Window> {
    Window::new(PREFETCH, HELD_BYTES_MAX)
}

/// Answers every message of one queue.
pub struct Settler {
    /// Writes the answers.
    pub answerer: Answerer,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// The error that a message of this queue is answered with.
    pub error_for: fn(&Delivery) -> JobError,
}

impl Settler {
    /// Takes messages until `stop`. Those whose end is not decided by then go back to their queue.
    pub async fn run(self, mut subscription: Subscription, stop: CancellationToken) {
        let mut given_up = GivenUp::default();
        loop {
            // All of these waits are cancel-safe.
            let dispositions = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = given_up.due() => {
                    let Answerer { store, worker_id, .. } = &self.answerer;
                    given_up.look(&**store, worker_id, |waiting| self.answer(waiting)).await
                }
                next = subscription.next() => match next {
                    Some(delivery) => self.decide(delivery, &mut given_up).into_iter().collect(),
                    None => break,
                },
            };
            self.answerer.settle_all(dispositions).await;
        }
        drop(given_up);
        subscription.stop().await;
    }

    /// The end of one message, unless it has to wait for that. A dead letter without a reply address is only
    /// acknowledged: the queue of dead letters keeps a copy for people.
    fn decide(&self, delivery: Delivery, given_up: &mut GivenUp) -> Option<Disposition> {
        let error = (self.error_for)(&delivery);
        let is_kept = delivery.exchange == forebay_schemas::names::DEAD;
        match intake::read(delivery, &self.limits) {
            Ok((job, ticket)) => {
                let waiting = Waiting { job, ticket, error };
                if waiting.error.code == ErrorCode::AttemptsExhausted {
                    given_up.push(waiting);
                    return None;
                }
                Some(self.answer(waiting))
            }
            Err(disposition) => {
                count(&error);
                Some(match disposition {
                    Disposition::DeadLetter { acker, .. } if is_kept => {
                        Disposition::Acknowledge(acker)
                    }
                    // What is no job at all is answered, or kept, for that reason.
                    other => other,
                })
            }
        }
    }

    fn answer(&self, Waiting { job, ticket, error }: Waiting) -> Disposition {
        count(&error);
        let trace_id = ticket.trace_id();
        tracing::info!(id = %job.id, trace_id, model = %job.model, %error, "settled without a worker");
        Disposition::failed(&job, ticket, error, self.answerer.attempts_max)
    }
}

fn count(error: &JobError) {
    counter!("forebay_settle_for_others_total", "code" => error.code.as_str()).increment(1);
}

/// The error of a message that no queue takes.
pub fn unroutable(delivery: &Delivery) -> JobError {
    let message = format!(
        "no queue takes the routing key `{}`: that model is not in this fleet",
        delivery.routing_key
    );
    JobError::new(ErrorCode::ModelNotFound, message)
}

/// The error of a message that is a dead letter, by the reason in its headers.
pub fn dead(delivery: &Delivery) -> JobError {
    let death = Death::read(delivery.properties.headers().as_ref());
    let queue = death.queue.as_deref().unwrap_or("unknown");
    let (code, message) = match death.reason {
        Reason::Expired => (
            ErrorCode::DeadlineExceeded,
            "expired in its queue before a worker could take it".to_owned(),
        ),
        Reason::DeliveryLimit => (
            ErrorCode::AttemptsExhausted,
            format!("queue `{queue}` reached its delivery limit without an acknowledgement"),
        ),
        reason => (ErrorCode::AttemptsExhausted, format!("queue `{queue}` gave it up: {reason}")),
    };
    JobError::new(code, message)
}
