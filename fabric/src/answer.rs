//! Writing answers: the record first, a copy to who asked for one, the acknowledgement last.
//!
//! A message is acknowledged only after the store has confirmed its record, or the broker its dead
//! letter. While either is away, this waits.

use std::{sync::Arc, time::Duration};

use forebay_schemas::{ErrorCode, JobError, Outcome};
use futures_util::{StreamExt, stream};
use metrics::counter;

use crate::{
    Broker, Store,
    backoff::Backoff,
    broker::{Acker, Message, Properties},
    clock, fail,
    intake::{Ended, Ticket},
    store::ResultRecord,
};

/// Copies of answers, and acknowledgements, that are under way at once.
const IN_FLIGHT_MAX: usize = 256;

/// Who writes answers.
#[derive(Debug, Clone)]
pub struct Answerer {
    /// The id that signs them.
    pub signature: String,
    /// Where they go.
    pub store: Arc<Store>,
    /// Where copies and dead letters go.
    pub broker: Broker,
}

struct Answer {
    ticket: Ticket,
    record: ResultRecord,
    state: &'static str,
}

impl Answerer {
    /// Ends messages that were not computed.
    pub async fn end(&self, ended: Vec<Ended>) {
        let mut answered = Vec::with_capacity(ended.len());
        for end in ended {
            match end {
                Ended::Answered(pair) => answered.push(*pair),
                Ended::Unanswerable { letter, acker } => {
                    self.keep_dead_letter(&letter, acker).await;
                }
            }
        }
        self.answer(answered).await;
    }

    /// Writes these answers in one go, then settles their messages.
    pub async fn answer(&self, answers: Vec<(Ticket, Outcome)>) {
        if answers.is_empty() {
            return;
        }
        let answers: Vec<Answer> = answers.into_iter().map(|(t, o)| self.signed(t, o)).collect();
        let records: Vec<ResultRecord> = answers.iter().map(|a| a.record.clone()).collect();
        self.write(&records).await;
        fail::point("after_result_write");
        self.reply(&answers).await;
        stream::iter(answers)
            .for_each_concurrent(IN_FLIGHT_MAX, |answer| async move {
                fail::point("before_ack");
                answer.ticket.acker.ack().await;
                counter!("forebay_settle_jobs_total", "state" => answer.state).increment(1);
            })
            .await;
    }

    fn signed(&self, ticket: Ticket, outcome: Outcome) -> Answer {
        let outcome = outcome.signed(&self.signature, ticket.attempts, clock::now_ms());
        let state = outcome.state.as_str();
        let bytes = outcome.encode(ticket.content_type).unwrap_or_else(|error| {
            // No value that a model gives is beyond the codecs; the asker is told all the same.
            let error = JobError::new(ErrorCode::Internal, error.to_string());
            let refused = Outcome::refused(ticket.id.clone(), error);
            refused.encode(ticket.content_type).unwrap_or_default()
        });
        let (id, notify) = (ticket.id.clone(), ticket.notify.clone());
        let record = ResultRecord { id, bytes, ttl_s: ticket.result_ttl_s, notify };
        Answer { ticket, record, state }
    }

    /// Writes until the store confirms. A record that is there already stands; both end the job.
    async fn write(&self, records: &[ResultRecord]) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.store.write_results(records).await {
            counter!("forebay_settle_store_errors_total").increment(1);
            tracing::warn!(%error, waiting = records.len(), "can't write results; trying again");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Publishes a copy of each answer that was asked for. The record is safe by now, so an asker who
    /// left his queue behind costs a log line and no more.
    async fn reply(&self, answers: &[Answer]) {
        stream::iter(answers.iter().filter_map(reply))
            .for_each_concurrent(IN_FLIGHT_MAX, |message| async move {
                if let Err(error) = self.broker.publish(&message).await {
                    tracing::info!(%error, "a reply was not delivered");
                }
            })
            .await;
    }

    /// Publishes until the broker confirms: without an answer, the letter is all there is.
    async fn keep_dead_letter(&self, letter: &Message, acker: Acker) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.broker.publish(letter).await {
            tracing::warn!(%error, "can't keep a dead letter; trying again");
            tokio::time::sleep(backoff.next_pause()).await;
        }
        acker.ack().await;
        counter!("forebay_settle_jobs_total", "state" => "dead").increment(1);
    }
}

fn reply(answer: &Answer) -> Option<Message> {
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
        body: answer.record.bytes.clone(),
    })
}
