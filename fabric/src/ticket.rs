//! The right to answer one message: where the answer goes, and the value that settles the delivery.

use forebay_schemas::{ContentType, JobId};

use crate::{
    broker::{Acker, Message, Properties},
    telemetry::trace::JobTrace,
};

/// The right to answer one message. It travels with the job, and its holder settles the job.
#[derive(Debug)]
pub struct Ticket {
    /// The job's id.
    pub id: JobId,
    /// Settles the delivery.
    pub acker: Acker,
    /// How the answer is encoded: as the job was.
    pub content_type: ContentType,
    /// Attempts that failed and were followed by another one.
    pub failures: u32,
    /// Workers that died while they had the job in their journal.
    pub deaths: u32,
    /// Whether the message was delivered before and not settled, to another consumer or to this one.
    pub returned: bool,
    /// How many seconds the answer is kept.
    pub result_ttl_s: u64,
    /// The channel on which waiters listen for the job's id.
    pub notify: Option<String>,
    /// The queue that gets a copy of the answer.
    pub reply_to: Option<ReplyTo>,
    /// The message as it came, for another attempt.
    pub message: Box<Message>,
    /// The trace that the job is part of, if there is one.
    pub trace: Option<Box<JobTrace>>,
}

impl Ticket {
    /// The number of this attempt, from 1.
    pub fn attempts(&self) -> u32 {
        self.failures.saturating_add(self.deaths).saturating_add(1)
    }

    /// The trace's id, for log lines.
    pub fn trace_id(&self) -> Option<String> {
        self.trace.as_deref().map(JobTrace::id)
    }

    /// Takes its trace out and returns what ends it, for when the job is settled.
    pub fn end_of_trace(&mut self, state: &'static str) -> Option<impl FnOnce() + use<>> {
        let trace = self.trace.take()?;
        let attempt = self.attempts();
        let id = self.id.clone();
        let routing_key = self.message.routing_key.clone();
        Some(move || trace.end(id.as_str(), &routing_key, state, attempt))
    }
}

/// The AMQP way to ask for a copy of the answer.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    /// The queue's name.
    pub queue: String,
    /// The publisher's own name for its question.
    pub correlation_id: Option<String>,
}

impl ReplyTo {
    /// Where the publisher of a message with these properties waits for a copy.
    pub fn of(asked: &Properties) -> Option<Self> {
        let queue =
            asked.reply_to().as_ref().filter(|queue| !queue.as_str().is_empty())?.to_string();
        Some(Self {
            queue,
            correlation_id: asked.correlation_id().as_ref().map(ToString::to_string),
        })
    }

    /// The message with `body`, an answer in `content_type` to a message with the properties `asked`. It has that
    /// message's own spelling of the content type: a client may take no other.
    pub fn message(self, asked: &Properties, content_type: ContentType, body: Vec<u8>) -> Message {
        let own = asked
            .content_type()
            .clone()
            .filter(|own| ContentType::parse(own.as_str()) == Some(content_type));
        let mut properties = Properties::default()
            .with_content_type(own.unwrap_or_else(|| content_type.as_str().into()));
        if content_type == ContentType::Msgpack {
            // Without it Python's kombu takes the body for text.
            properties = properties.with_content_encoding("binary".into());
        }
        if let Some(correlation_id) = &self.correlation_id {
            properties = properties.with_correlation_id(correlation_id.as_str().into());
        }
        Message { exchange: String::new(), routing_key: self.queue, properties, body }
    }
}
