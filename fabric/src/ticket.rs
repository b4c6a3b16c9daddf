//! The right to answer one message: where the answer goes, and the value that settles the delivery.

use forebay_schemas::{ContentType, JobId};

use crate::broker::{Acker, Message};

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
}

impl Ticket {
    /// The number of this attempt, from 1.
    pub fn attempts(&self) -> u32 {
        self.failures.saturating_add(self.deaths).saturating_add(1)
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
