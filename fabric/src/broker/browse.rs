//! Walking over what lies in a queue: every message is looked at, few are taken, the rest stays.

use std::{io, time::Duration};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{Broker, BrokerError, Properties};

/// A message that lies in a queue. It stays there unless it is taken.
#[derive(Debug)]
pub struct BrowsedMessage {
    /// The body.
    pub body: Vec<u8>,
    /// The AMQP properties.
    pub properties: Properties,
    /// The routing key it was published with.
    pub routing_key: String,
    acker: lapin::Acker,
}

impl BrowsedMessage {
    /// Takes the message out of its queue. `false` when the walk that came by it has ended: then the
    /// message is in its queue.
    pub async fn take(self) -> bool {
        matches!(self.acker.ack(BasicAckOptions::default()).await, Ok(true))
    }
}

/// A walk over a queue from its head. What it came by is held back from everybody else until it ends,
/// and then returned in its order, behind what was not looked at; so a walk sees each message once, and two
/// walks at a time see different ones.
#[derive(Debug)]
pub struct Browse {
    /// Its own: what is not acknowledged returns when it closes.
    channel: Channel,
    queue: String,
    left: u32,
    /// Of all that it came by, in their order. Those of taken messages do nothing any more.
    ackers: Vec<lapin::Acker>,
}

/// The longest that the broker may take to hand out a message.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Broker {
    /// Begins a walk over the messages that wait in `queue` now. Those that come later are not met, so
    /// that every walk ends.
    pub async fn browse(&self, queue: &str) -> Result<Browse, BrokerError> {
        let failed = |e| BrokerError::command(format!("looking at queue `{queue}`"), e);
        let channel = self.connection()?.create_channel().await.map_err(failed)?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let state = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        let left = state.map_err(failed)?.message_count();
        Ok(Browse { channel, queue: queue.to_owned(), left, ackers: Vec::new() })
    }
}

impl Browse {
    /// How many messages are still ahead, at most.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<BrowsedMessage>, BrokerError> {
        if self.left == 0 {
            return Ok(None);
        }
        let get = self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default());
        let got = tokio::time::timeout(ANSWER_WITHIN, get)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        let got = got.map_err(|e| self.failed(e))?;
        // Somebody else may have taken what was ahead.
        self.left = if got.is_some() { self.left - 1 } else { 0 };
        let Some(got) = got else { return Ok(None) };
        self.ackers.push(got.delivery.acker.clone());
        Ok(Some(BrowsedMessage {
            body: got.delivery.data,
            properties: got.delivery.properties,
            routing_key: got.delivery.routing_key.to_string(),
            acker: got.delivery.acker,
        }))
    }

    /// Ends the walk: once this is back, everything that was not taken is in the queue again.
    pub async fn end(mut self) -> Result<(), BrokerError> {
        // One by one, because what returns with its channel returns in any order.
        let hand_back = BasicNackOptions { multiple: false, requeue: true };
        for acker in std::mem::take(&mut self.ackers) {
            acker.nack(hand_back).await.map_err(|e| self.failed(e))?;
        }
        self.channel.close(200, "seen".into()).await.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: lapin::Error) -> BrokerError {
        BrokerError::command(format!("walking over queue `{}`", self.queue), error)
    }
}
