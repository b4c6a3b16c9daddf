//! Helpers of this crate's tests.

use forebay_fabric::{
    broker::{Acker, Message, Properties, Settlement},
    ticket::Ticket,
};
use forebay_schemas::{ContentType, JobId, limits::RESULT_TTL_S_DEFAULT};

/// Settles no delivery.
struct Detached;

impl Settlement for Detached {
    fn ack(self: Box<Self>) -> bool {
        false
    }

    fn requeue(self: Box<Self>) -> bool {
        false
    }
}

/// A ticket of no delivery.
pub fn ticket(id: JobId) -> Ticket {
    let message = Message {
        exchange: String::new(),
        routing_key: String::new(),
        properties: Properties::default(),
        body: Vec::new(),
    };
    Ticket {
        id,
        acker: Acker::new(Detached),
        content_type: ContentType::Json,
        failures: 0,
        deaths: 0,
        returned: false,
        result_ttl_s: RESULT_TTL_S_DEFAULT,
        notify: None,
        reply_to: None,
        message: Box::new(message),
    }
}
