//! Browsing a queue: every message is looked at, few are taken, the rest stays in the queue.

use std::{io, time::Duration};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    connection::Broker,
    delivery::{Acker, Delivery, Settlement},
    error::BrokerError,
    publish::Properties,
};

/// A message that waits in a queue. It stays there unless it is taken.
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
    /// Takes the message out of its queue. `false` when the browse that returned it has ended: then the
    /// message is back in its queue.
    pub async fn take(self) -> bool {
        matches!(self.acker.ack(BasicAckOptions::default()).await, Ok(true))
    }

    /// How often the broker has delivered it before.
    pub fn delivery_count(&self) -> u64 {
        let headers = self.properties.headers().as_ref();
        match headers.and_then(|headers| headers.inner().get("x-delivery-count")) {
            Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or(0),
            _ => 0,
        }
    }

    /// The message as a delivery. Acknowledged, it is taken out of its queue; requeued, it stays in the browse, which
    /// gives it back at its end.
    pub fn into_delivery(self) -> Delivery {
        let redelivered = self.delivery_count() > 0;
        let Self { body, properties, routing_key, acker } = self;
        let acker = Acker::new(Browsed(acker));
        Delivery { body, properties, exchange: String::new(), routing_key, redelivered, acker }
    }
}

/// Settles a browsed message.
struct Browsed(lapin::Acker);

impl Settlement for Browsed {
    fn ack(self: Box<Self>) -> bool {
        let is_open = self.0.usable();
        if is_open {
            // The frame is queued at the first poll; a lost one means another delivery of an answered job.
            tokio::spawn(async move { self.0.ack(BasicAckOptions::default()).await });
        }
        is_open
    }

    fn requeue(self: Box<Self>) -> bool {
        true
    }
}

/// A browse of a queue from its head. The messages that it has returned are hidden from all other consumers until
/// it ends, and then go back to the queue in their order, behind those that it did not reach. So a browse sees each
/// message once, and two browses at a time see different ones.
#[derive(Debug)]
pub struct Browse {
    /// A channel of its own: messages that are not acknowledged are requeued when it closes.
    channel: Channel,
    queue: String,
    left: u32,
    /// Of all messages that it has returned, in their order. Those of taken messages have no effect any more.
    ackers: Vec<lapin::Acker>,
}

/// The longest that the broker may take to hand out a message.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Broker {
    /// Begins to browse the messages that wait in `queue` now. Later ones are left out, so that every browse
    /// ends.
    pub async fn browse(&self, queue: &str) -> Result<Browse, BrokerError> {
        let failed = |e| BrokerError::command(format!("opening queue `{queue}` to browse it"), e);
        let channel = self.connection()?.create_channel().await.map_err(failed)?;
        let left = waiting(&channel, queue).await.map_err(failed)?;
        Ok(Browse { channel, queue: queue.to_owned(), left, ackers: Vec::new() })
    }
}

async fn waiting(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let state = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(state.message_count())
}

impl Browse {
    /// The most messages that are still ahead.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Takes in the messages that came to the queue since the browse began.
    pub async fn look_again(&mut self) -> Result<(), BrokerError> {
        let look = tokio::time::timeout(ANSWER_WITHIN, waiting(&self.channel, &self.queue))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        self.left = look.map_err(|e| self.failed(e))?;
        // Those that were taken are done with.
        self.ackers.retain(lapin::Acker::usable);
        Ok(())
    }

    /// How many messages it has returned that were not taken, as of the last [`Self::look_again`].
    pub fn held(&self) -> usize {
        self.ackers.len()
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
        // Another consumer may have taken the rest.
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

    /// Ends the browse: once this returns, every message that was not taken is in the queue again.
    pub async fn end(mut self) -> Result<(), BrokerError> {
        // One by one, because messages that are requeued with their channel return in any order.
        let requeue = BasicNackOptions { multiple: false, requeue: true };
        for acker in std::mem::take(&mut self.ackers) {
            acker.nack(requeue).await.map_err(|e| self.failed(e))?;
        }
        self.channel.close(200, "seen".into()).await.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: lapin::Error) -> BrokerError {
        BrokerError::command(format!("browsing queue `{}`", self.queue), error)
    }
}
