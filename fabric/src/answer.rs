//! Writing answers: the record first, a copy to the publisher that asked for one, the acknowledgement last.
//!
//! A message is acknowledged only after the store has confirmed its record, or the broker has taken it
//! over as a dead letter or for another attempt. While either is away, this waits.

use std::{collections::BTreeMap, panic::resume_unwind, sync::Arc, time::Duration};

use forebay_schemas::{
    ErrorCode, JobError, Outcome, Output, ResultPointer, Task, topology::RETRY_STEPS,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use metrics::counter;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    backoff::Backoff,
    broker::{Acker, Message, PublishError, Publisher},
    clock::Clock,
    disposition::{Disposition, uncounted_time},
    fail, metered, retry,
    store::{ResultRecord, ResultStore, Written},
    ticket::Ticket,
};

/// The most follow-ups that [`Answerer::settle_all`] polls at once.
const FOLLOW_UPS_MAX: usize = 256;
/// Results with so many values take milliseconds to encode, in JSON: they do not hold up the others.
const LARGE_FROM: usize = 32_768;
/// Large results that are encoded and written at once, in this process. The others wait as values, which take a third
/// of the bytes of their decimal numbers.
static LARGE_AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The rest of settling one message: it ends with the acknowledgement.
///
/// A follow-up waits for the broker, which may take no publishes for a long time while acknowledgements still go
/// through; or it encodes a large result on a thread that may block, writes and acknowledges it. So the settling stage
/// polls them beside its other work. There are never more than there are unsettled deliveries.
pub type FollowUp = BoxFuture<'static, ()>;

/// Writes answers and settles messages.
#[derive(Clone)]
pub struct Answerer {
    /// The id that the records name as their worker: a worker's own, or the autoscaler's.
    pub worker_id: String,
    /// The store of the records.
    pub store: Arc<dyn ResultStore>,
    /// Publishes copies, dead letters and further attempts.
    pub publisher: Arc<dyn Publisher>,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// Dates the records.
    pub clock: Clock,
}

/// A job whose answer is a record, and its ticket.
struct Answered {
    ticket: Ticket,
    state: &'static str,
    /// The record's bytes, where the publisher asked for a copy.
    copy: Option<Vec<u8>>,
    /// Sent in place of a copy that is too large for a message.
    pointer: ResultPointer,
}

impl Answerer {
    /// Carries out what happens next to these messages: writes all small answers in one go, then acknowledges. Returns
    /// what takes longer.
    pub async fn settle(&self, dispositions: Vec<Disposition>) -> Vec<FollowUp> {
        let mut follow_ups: Vec<FollowUp> = Vec::new();
        let mut answered = Vec::with_capacity(dispositions.len());
        let mut records = Vec::with_capacity(dispositions.len());
        let mut recorded_before = Vec::new();
        for disposition in dispositions {
            match disposition {
                Disposition::Answer(answer) => {
                    let (ticket, outcome) = *answer;
                    if is_large(&outcome) {
                        follow_ups.push(self.clone().answer_large(ticket, outcome).boxed());
                        continue;
                    }
                    let (answer, record) = self.stamped(ticket, outcome);
                    answered.push(answer);
                    records.push(record);
                }
                Disposition::Acknowledge(acker) => {
                    counter!("forebay_settle_already_total").increment(1);
                    recorded_before.push(acker);
                }
                // Dropped, it goes back, if its channel is there at all.
                Disposition::GiveBack(acker) => drop(acker),
                Disposition::RetryLater { ticket, step } => {
                    follow_ups.push(self.clone().retry_later(ticket, step).boxed());
                }
                Disposition::DeadLetter { message, acker, reply } => {
                    follow_ups.push(self.clone().dead_letter(message, acker, reply).boxed());
                }
            }
        }
        Acker::ack_all(recorded_before).await;
        if answered.is_empty() {
            return follow_ups;
        }
        self.write(&records).await;
        fail::point("after_result_write");
        let (with_copy, plain): (Vec<Answered>, Vec<Answered>) =
            answered.into_iter().partition(|answer| answer.copy.is_some());
        follow_ups.extend(with_copy.into_iter().map(|answer| self.clone().reply(answer).boxed()));
        acknowledge(plain).await;
        follow_ups
    }

    /// Settles messages and waits until nothing of it is left to do.
    pub async fn settle_all(&self, dispositions: Vec<Disposition>) {
        let follow_ups = self.settle(dispositions).await;
        stream::iter(follow_ups).for_each_concurrent(FOLLOW_UPS_MAX, |rest| rest).await;
    }

    /// Encodes the answer where that holds up no other, writes it, and acknowledges.
    async fn answer_large(self, ticket: Ticket, outcome: Outcome) {
        // Held until it is written: results that wait for the store are bounded too. The semaphore is never closed.
        let turn = LARGE_AT_ONCE.acquire().await;
        let encoder = self.clone();
        let (answer, record) = match spawn_blocking(move || encoder.stamped(ticket, outcome)).await
        {
            Ok(encoded) => encoded,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends: the delivery goes back to its queue.
                Err(_) => return,
            },
        };
        self.write(&[record]).await;
        drop(turn);
        fail::point("after_result_write");
        self.reply(answer).await;
    }

    fn stamped(&self, mut ticket: Ticket, outcome: Outcome) -> (Answered, ResultRecord) {
        let outcome = outcome.stamped(&self.worker_id, ticket.attempts(), self.clock.now_ms());
        if let Some(trace) = &mut ticket.trace {
            trace.has(&outcome);
        }
        let state = outcome.state.as_str();
        let bytes = outcome.encode(ticket.content_type).unwrap_or_else(|error| {
            // No value that a model gives is beyond the codecs; if one were, the answer says so.
            let error = JobError::new(ErrorCode::Internal, error.to_string());
            let refused = Outcome::refused(ticket.id.clone(), error);
            refused.encode(ticket.content_type).unwrap_or_default()
        });
        let copy = ticket.reply_to.is_some().then(|| bytes.clone());
        let pointer = ResultPointer::to(&outcome, bytes.len());
        let record = ResultRecord {
            id: ticket.id.clone(),
            bytes,
            ttl_s: ticket.result_ttl_s,
            notify: ticket.notify.clone(),
            ends_tokens: outcome.task.as_deref() == Some(Task::Generate.as_str()),
            usage: Some(metered::entry(&ticket, outcome)),
        };
        (Answered { ticket, state, copy, pointer }, record)
    }

    /// Writes until the store confirms. A record that is there already stands; both end the job.
    async fn write(&self, records: &[ResultRecord]) {
        let mut backoff = backoff();
        let written = loop {
            match self.store.write_results(records).await {
                Ok(written) => break written,
                Err(error) => {
                    counter!("forebay_settle_store_errors_total").increment(1);
                    let waiting = records.len();
                    tracing::warn!(%error, waiting, "can't write results; trying again");
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        };
        // After an error some may be there that this very worker has written: then a little too much is reported.
        for (record, written) in records.iter().zip(written) {
            if let (Written::AlreadyThere, Some(usage)) = (written, &record.usage) {
                uncounted_time(usage.device_us, "answered_before");
            }
        }
    }

    /// Publishes a copy of the answer if one is asked for, and acknowledges. The record is safe by now, so a publisher
    /// whose queue is gone costs a log line and no more.
    async fn reply(self, mut answer: Answered) {
        if let Some(mut message) = reply(&mut answer) {
            let mut sent = self.publisher.publish(&message).await;
            if let Err(PublishError::TooLarge { bytes, bytes_max }) = sent {
                let Ticket { id, .. } = &answer.ticket;
                let trace_id = answer.ticket.trace_id();
                tracing::info!(%id, trace_id, bytes, bytes_max, "replied with a pointer");
                counter!("forebay_settle_replies_too_large_total").increment(1);
                // A map of short texts and numbers is within the codecs.
                message.body =
                    answer.pointer.encode(answer.ticket.content_type).unwrap_or_default();
                sent = self.publisher.publish(&message).await;
            }
            if let Err(error) = sent {
                let trace_id = answer.ticket.trace_id();
                tracing::info!(id = %answer.ticket.id, trace_id, %error, "a reply was not delivered");
            }
        }
        acknowledge(vec![answer]).await;
    }

    /// Publishes the message to its back-off step; the broker brings it back.
    async fn retry_later(self, mut ticket: Box<Ticket>, step: usize) {
        let failures = ticket.failures.saturating_add(1);
        let message = retry::message(&ticket.message, step, failures);
        let delay = RETRY_STEPS[step].0;
        let trace_id = ticket.trace_id();
        tracing::info!(id = %ticket.id, trace_id, failures, delay, "failed for a passing cause; tried again");
        if let Err(TooLarge { bytes_max }) = self.publish("another attempt", &message).await {
            let reason = format!("it can't be tried again: RabbitMQ now takes {bytes_max} bytes");
            let error = JobError::new(ErrorCode::PayloadTooLarge, reason);
            let outcome = Outcome::refused(ticket.id.clone(), error);
            let (answer, record) = self.stamped(*ticket, outcome);
            self.write(&[record]).await;
            return self.reply(answer).await;
        }
        let end_of_trace = ticket.end_of_trace("retried");
        ticket.acker.ack().await;
        counter!("forebay_settle_retries_total", "delay" => delay).increment(1);
        if let Some(end) = end_of_trace {
            end();
        }
    }

    /// Publishes the message to the dead letters: without an answer, that copy is all there is.
    async fn dead_letter(
        self,
        mut message: Box<Message>,
        acker: Acker,
        reply: Option<Box<Message>>,
    ) {
        while let Err(TooLarge { bytes_max }) = self.publish("a dead letter", &message).await {
            // Its beginning is kept: that is no job in any case.
            message.body.truncate(bytes_max);
        }
        if let Some(reply) = reply
            && let Err(error) = self.publisher.publish(&reply).await
        {
            tracing::info!(%error, "a reply was not delivered");
        }
        acker.ack().await;
        counter!("forebay_settle_jobs_total", "state" => "dead").increment(1);
    }

    /// Publishes until the broker confirms. An error only where trying again can't help.
    async fn publish(&self, what: &'static str, message: &Message) -> Result<(), TooLarge> {
        let mut backoff = backoff();
        loop {
            match self.publisher.publish(message).await {
                Ok(()) => return Ok(()),
                Err(PublishError::TooLarge { bytes, bytes_max }) => {
                    tracing::warn!(what, bytes, bytes_max, "larger than the broker takes");
                    return Err(TooLarge { bytes_max });
                }
                Err(error) => tracing::warn!(%error, what, "can't publish; trying again"),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

/// A message is larger than the broker takes: its limit was lowered since the message came.
struct TooLarge {
    bytes_max: usize,
}

/// Short pauses: throughput is to be back within seconds of the store or the broker.
fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

fn is_large(outcome: &Outcome) -> bool {
    outcome.output.as_ref().is_some_and(|output| values(output) >= LARGE_FROM)
}

/// The numbers in an output: its length when it is encoded goes by them.
fn values(output: &Output) -> usize {
    match output {
        Output::Embed(vectors) => vectors.data.len(),
        Output::EmbedSparse(sparse) => {
            sparse.vectors.iter().map(|vector| vector.indices.len() + vector.values.len()).sum()
        }
        Output::EmbedTokens(tokens) => tokens.inputs.iter().map(Vec::len).sum(),
        Output::Rerank { scores, order } => scores.len() + order.len(),
        Output::Classify { labels } => labels.iter().map(Vec::len).sum(),
        Output::Generate { text, token_ids, logprobs, .. } => {
            let likely = logprobs.iter().flatten().map(|logprob| 1 + logprob.top.len());
            text.len() / 4 + token_ids.iter().flatten().count() + 4 * likely.sum::<usize>()
        }
    }
}

async fn acknowledge(answers: Vec<Answered>) {
    let mut ackers = Vec::with_capacity(answers.len());
    let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut traces = Vec::new();
    for mut answer in answers {
        fail::point("before_ack");
        *states.entry(answer.state).or_default() += 1;
        traces.extend(answer.ticket.end_of_trace(answer.state));
        ackers.push(answer.ticket.acker);
    }
    for (state, jobs) in states {
        counter!("forebay_settle_jobs_total", "state" => state).increment(jobs);
    }
    Acker::ack_all(ackers).await;
    for end in traces {
        end();
    }
}

fn reply(answer: &mut Answered) -> Option<Message> {
    let Ticket { id, reply_to, content_type, message, .. } = &answer.ticket;
    let mut reply =
        reply_to.clone()?.message(&message.properties, *content_type, answer.copy.take()?);
    reply.properties = reply.properties.with_message_id(id.as_str().into());
    Some(reply)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use forebay_schemas::{ContentType, EmbedOutput, Job, JobId, State, TokenChunk};

    use super::*;
    use crate::{
        broker::{Properties, PublishError, Settlement},
        store::{Appended, Asked, Standing, TokenAppend, Written},
        ticket::ReplyTo,
    };

    /// Writes down what happens, in order.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<&'static str>>>);

    impl Log {
        fn add(&self, event: &'static str) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Settlement for Log {
        fn ack(self: Box<Self>) -> bool {
            self.add("acknowledged");
            true
        }

        fn requeue(self: Box<Self>) -> bool {
            self.add("given back");
            true
        }
    }

    impl Publisher for Log {
        fn publish<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<(), PublishError>> {
            async {
                tokio::task::yield_now().await; // as a broker takes its time to confirm
                self.add("published");
                Ok(())
            }
            .boxed()
        }
    }

    impl ResultStore for Log {
        fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
            async {
                tokio::task::yield_now().await;
                let is_large = records.iter().any(|record| record.bytes.len() > 1_000_000);
                self.add(if is_large { "a large one written" } else { "written" });
                Ok(vec![Written::First; records.len()])
            }
            .boxed()
        }

        fn cancelled<'a>(&'a self, _: &'a [JobId]) -> Asked<'a, Vec<bool>> {
            async { Ok(Vec::new()) }.boxed()
        }

        fn write_journal<'a>(&'a self, _: &'a str, _: u64, _: &'a [JobId]) -> Asked<'a, ()> {
            async { Ok(()) }.boxed()
        }

        fn name_taken_over<'a>(&'a self, _: &'a str) -> Asked<'a, ()> {
            async { Ok(()) }.boxed()
        }

        fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>> {
            async { Ok(vec![Appended::Written; appends.len()]) }.boxed()
        }

        fn claim_tokens<'a>(&'a self, _: &'a JobId, _: &'a str) -> Asked<'a, Vec<TokenChunk>> {
            async { Ok(Vec::new()) }.boxed()
        }

        fn standings<'a>(&'a self, _: &'a str, _: &'a [JobId]) -> Asked<'a, Vec<Standing>> {
            async { Ok(Vec::new()) }.boxed()
        }
    }

    fn ticket(reply_to: Option<ReplyTo>, log: &Log) -> Ticket {
        Ticket {
            id: "job".parse().unwrap(),
            acker: Acker::new(log.clone()),
            content_type: ContentType::Json,
            failures: 0,
            deaths: 0,
            returned: false,
            result_ttl_s: 60,
            notify: None,
            reply_to,
            trace: None,
            message: Box::new(Message {
                exchange: String::new(),
                routing_key: "m.batch".into(),
                properties: Properties::default(),
                body: Vec::new(),
            }),
        }
    }

    fn answerer(log: &Log) -> Answerer {
        Answerer {
            worker_id: "w".into(),
            store: Arc::new(log.clone()),
            publisher: Arc::new(log.clone()),
            attempts_max: 5,
            clock: Clock::default(),
        }
    }

    /// The events while these dispositions are carried out, in order.
    async fn carried_out(make: impl FnOnce(&Log) -> Disposition) -> Vec<&'static str> {
        let log = Log::default();
        answerer(&log).settle_all(vec![make(&log)]).await;
        log.0.lock().unwrap().clone()
    }

    fn answer(ticket: Ticket) -> Disposition {
        let error = JobError::new(ErrorCode::NumericalError, "not finite");
        Disposition::Answer(Box::new((ticket, Outcome::refused("job".parse().unwrap(), error))))
    }

    #[tokio::test]
    async fn a_message_is_acknowledged_after_its_record_and_the_publisher_s_copy() {
        let plain = carried_out(|log| answer(ticket(None, log))).await;
        assert_eq!(plain, ["written", "acknowledged"]);
        let to = || Some(ReplyTo { queue: "q".into(), correlation_id: None });
        let copied = carried_out(|log| answer(ticket(to(), log))).await;
        assert_eq!(copied, ["written", "published", "acknowledged"]);
    }

    #[tokio::test]
    async fn a_message_is_acknowledged_after_its_next_attempt_or_its_dead_letter_is_on_a_queue() {
        let again = carried_out(|log| Disposition::RetryLater {
            ticket: Box::new(ticket(None, log)),
            step: 0,
        });
        assert_eq!(again.await, ["published", "acknowledged"]);
        let dead = carried_out(|log| {
            let Ticket { message, acker, .. } = ticket(None, log);
            Disposition::DeadLetter { message, acker, reply: None }
        });
        assert_eq!(dead.await, ["published", "acknowledged"]);
    }

    /// 2,048 vectors of 768 values, at the longest that a value is in JSON.
    fn large(ticket: Ticket) -> Disposition {
        let job = Job::embed("m".parse().unwrap(), Vec::new());
        let data = vec![-1.234_567_9e-12; 2_048 * 768];
        let output = Some(Output::Embed(EmbedOutput { dim: 768, data }));
        let error = JobError::new(ErrorCode::Internal, "replaced");
        let outcome = Outcome {
            state: State::Succeeded,
            error: None,
            output,
            ..Outcome::failed(&job, error)
        };
        Disposition::Answer(Box::new((ticket, outcome)))
    }

    /// On one thread: whatever is encoded on it is encoded before anything else happens.
    #[tokio::test]
    async fn small_results_are_settled_while_a_large_one_is_encoded() {
        let log = Log::default();
        let answerer = answerer(&log);
        let mut follow_ups = answerer.settle(vec![large(ticket(None, &log))]).await;
        let follow_up = follow_ups.pop().expect("a large result takes longer");
        let small = vec![answer(ticket(None, &log))];
        tokio::join!(biased; follow_up, answerer.settle(small));
        let events = log.0.lock().unwrap().clone();
        assert_eq!(events, ["written", "acknowledged", "a large one written", "acknowledged"]);
    }

    #[tokio::test]
    async fn a_large_result_is_copied_to_the_publisher_that_asked_for_it() {
        let to = Some(ReplyTo { queue: "q".into(), correlation_id: None });
        let copied = carried_out(|log| large(ticket(to, log))).await;
        assert_eq!(copied, ["a large one written", "published", "acknowledged"]);
    }
}
