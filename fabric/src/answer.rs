//! Writing answers: the record first, a copy to who asked for one, the acknowledgement last.
//!
//! A message is acknowledged only after the store has confirmed its record, or the broker has taken it
//! over as a dead letter or for another try. While either is away, this waits.

use std::{sync::Arc, time::Duration};

use forebay_schemas::{ErrorCode, JobError, Outcome, topology::RETRY_STEPS};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use metrics::counter;

use crate::{
    backoff::Backoff,
    broker::{Acker, Message, Properties, Publisher},
    clock::Clock,
    fail,
    intake::{Ended, Ticket},
    retry::{self, Next},
    store::{ResultRecord, ResultStore},
};

/// Errands of those who run them to their end that are under way at once.
const IN_FLIGHT_MAX: usize = 256;

/// What is left to do for one message after its record is safe: it ends with the acknowledgement.
///
/// Errands wait for the broker, which may take no publishes for a long time while acknowledgements
/// still go through. So whoever settles polls them beside its other work. There are never more than
/// there are unsettled deliveries.
pub type Errand = BoxFuture<'static, ()>;

/// Who writes answers.
#[derive(Clone)]
pub struct Answerer {
    /// The id that signs them.
    pub signature: String,
    /// Where they go.
    pub store: Arc<dyn ResultStore>,
    /// Where copies, dead letters and further tries go.
    pub publisher: Arc<dyn Publisher>,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// What tells when.
    pub clock: Clock,
}

struct Answer {
    ticket: Ticket,
    state: &'static str,
    /// The record for who asked for a copy.
    copy: Option<Vec<u8>>,
}

/// What becomes of one ticket.
enum Fate {
    Answered(Box<(Answer, ResultRecord)>),
    Again { ticket: Box<Ticket>, step: usize },
}

impl Answerer {
    /// Ends messages that were not computed. What comes back is left to do.
    pub async fn end(&self, ended: Vec<Ended>) -> Vec<Errand> {
        let mut errands = Vec::new();
        let mut answered = Vec::with_capacity(ended.len());
        let mut settled = Vec::new();
        for end in ended {
            match end {
                Ended::Answered(pair) => answered.push(*pair),
                Ended::Settled(acker) => {
                    counter!("forebay_settle_already_total").increment(1);
                    settled.push(acker);
                }
                Ended::Unanswerable { letter, acker } => {
                    errands.push(self.clone().keep_dead_letter(letter, acker).boxed());
                }
            }
        }
        Acker::ack_all(settled).await;
        errands.extend(self.answer(answered).await);
        errands
    }

    /// Writes these answers in one go, then settles their messages. Jobs whose failure may pass are
    /// not answered but tried again. What comes back is left to do.
    pub async fn answer(&self, outcomes: Vec<(Ticket, Outcome)>) -> Vec<Errand> {
        let mut errands: Vec<Errand> = Vec::new();
        let mut answers = Vec::with_capacity(outcomes.len());
        let mut records = Vec::with_capacity(outcomes.len());
        for (ticket, outcome) in outcomes {
            match self.fate(ticket, outcome) {
                Fate::Answered(answered) => {
                    let (answer, record) = *answered;
                    answers.push(answer);
                    records.push(record);
                }
                Fate::Again { ticket, step } => {
                    errands.push(self.clone().try_again(ticket, step).boxed());
                }
            }
        }
        if answers.is_empty() {
            return errands;
        }
        self.write(&records).await;
        fail::point("after_result_write");
        let (replied, plain): (Vec<Answer>, Vec<Answer>) =
            answers.into_iter().partition(|answer| answer.copy.is_some());
        errands.extend(replied.into_iter().map(|answer| self.clone().reply(answer).boxed()));
        acknowledge(plain).await;
        errands
    }

    /// Ends messages and stays until nothing is left to do.
    pub async fn end_all(&self, ended: Vec<Ended>) {
        let errands = self.end(ended).await;
        stream::iter(errands).for_each_concurrent(IN_FLIGHT_MAX, |errand| errand).await;
    }

    fn fate(&self, ticket: Ticket, mut outcome: Outcome) -> Fate {
        if let Some(error) = outcome.error.take() {
            match retry::next(error, ticket.attempts(), self.attempts_max) {
                Next::Again(step) => return Fate::Again { ticket: Box::new(ticket), step },
                Next::Answer(error) => outcome.error = Some(error),
            }
        }
        Fate::Answered(Box::new(self.signed(ticket, outcome)))
    }

    fn signed(&self, ticket: Ticket, outcome: Outcome) -> (Answer, ResultRecord) {
        let outcome = outcome.signed(&self.signature, ticket.attempts(), self.clock.now_ms());
        let state = outcome.state.as_str();
        let bytes = outcome.encode(ticket.content_type).unwrap_or_else(|error| {
            // No value that a model gives is beyond the codecs; the asker is told all the same.
            let error = JobError::new(ErrorCode::Internal, error.to_string());
            let refused = Outcome::refused(ticket.id.clone(), error);
            refused.encode(ticket.content_type).unwrap_or_default()
        });
        let (id, notify) = (ticket.id.clone(), ticket.notify.clone());
        let copy = ticket.reply_to.is_some().then(|| bytes.clone());
        let record = ResultRecord { id, bytes, ttl_s: ticket.result_ttl_s, notify };
        (Answer { ticket, state, copy }, record)
    }

    /// Writes until the store confirms. A record that is there already stands; both end the job.
    async fn write(&self, records: &[ResultRecord]) {
        let mut backoff = backoff();
        while let Err(error) = self.store.write_results(records).await {
            counter!("forebay_settle_store_errors_total").increment(1);
            tracing::warn!(%error, waiting = records.len(), "can't write results; trying again");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Publishes a copy of the answer to who asked for one. The record is safe by now, so an asker who
    /// left his queue behind costs a log line and no more.
    async fn reply(self, mut answer: Answer) {
        if let Some(message) = reply(&mut answer)
            && let Err(error) = self.publisher.publish(&message).await
        {
            tracing::info!(%error, "a reply was not delivered");
        }
        acknowledge(vec![answer]).await;
    }

    /// Hands the message to its back-off step; the broker brings it back.
    async fn try_again(self, ticket: Box<Ticket>, step: usize) {
        let failures = ticket.failures.saturating_add(1);
        let message = retry::message(&ticket.message, step, failures);
        let delay = RETRY_STEPS[step].0;
        tracing::info!(id = %ticket.id, failures, delay, "failed for a passing cause; tried again");
        self.publish("another try", &message).await;
        ticket.acker.ack().await;
        counter!("forebay_settle_retries_total", "delay" => delay).increment(1);
    }

    /// Without an answer, the letter is all there is.
    async fn keep_dead_letter(self, letter: Box<Message>, acker: Acker) {
        self.publish("a dead letter", &letter).await;
        acker.ack().await;
        counter!("forebay_settle_jobs_total", "state" => "dead").increment(1);
    }

    /// Publishes until the broker confirms.
    async fn publish(&self, what: &'static str, message: &Message) {
        let mut backoff = backoff();
        while let Err(error) = self.publisher.publish(message).await {
            tracing::warn!(%error, what, "can't publish; trying again");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

/// Short pauses: throughput is to be back within seconds of what was away.
fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

async fn acknowledge(answers: Vec<Answer>) {
    let mut ackers = Vec::with_capacity(answers.len());
    for answer in answers {
        fail::point("before_ack");
        counter!("forebay_settle_jobs_total", "state" => answer.state).increment(1);
        ackers.push(answer.ticket.acker);
    }
    Acker::ack_all(ackers).await;
}

fn reply(answer: &mut Answer) -> Option<Message> {
    let reply_to = answer.ticket.reply_to.as_ref()?;
    let mut properties = Properties::default()
        .with_content_type(answer.ticket.content_type.as_str().into())
        .with_message_id(answer.ticket.id.as_str().into());
    if let Some(correlation_id) = &reply_to.correlation_id {
        properties = properties.with_correlation_id(correlation_id.as_str().into());
    }
    Some(Message {
        exchange: String::new(),
        routing_key: reply_to.queue.clone(),
        properties,
        body: answer.copy.take()?,
    })
}
