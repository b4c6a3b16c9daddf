//! A message that was delivered, and the one value that can settle it.

use std::sync::Arc;

use lapin::types::AMQPValue;

use super::{
    consumer_channel::ConsumerChannel,
    publish::{Message, Properties},
    window::Held,
};

/// A message that the broker delivered and that must be settled.
#[derive(Debug)]
pub struct Delivery {
    /// The body.
    pub body: Vec<u8>,
    /// The AMQP properties.
    pub properties: Properties,
    /// The exchange that brought it to its queue.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Whether the broker delivered it before; that may have been to the same consumer.
    pub redelivered: bool,
    /// Settles it.
    pub acker: Acker,
}

impl Delivery {
    /// A delivery that came on `channel` and holds a share of its subscription's window.
    pub(super) fn new(
        delivery: lapin::message::Delivery,
        channel: Arc<ConsumerChannel>,
        held: Held,
    ) -> Self {
        let acker = Acker::of_broker(delivery.delivery_tag, channel).holding(held);
        Self {
            body: delivery.data,
            properties: delivery.properties,
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            acker,
        }
    }

    /// A whole, non-negative number from a header.
    pub fn header_number(&self, name: &str) -> Option<u64> {
        number(self.properties.headers().as_ref()?.inner().get(name)?)
    }

    /// A text from a header.
    pub fn header_text(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    /// How often the broker has delivered it before.
    pub fn delivery_count(&self) -> u64 {
        let counted = self.header_number("x-delivery-count").unwrap_or(0);
        counted.max(u64::from(self.redelivered))
    }

    /// The message as it came, and the value that settles it.
    pub fn into_message(self) -> (Message, Acker) {
        let Self { body, properties, routing_key, acker, .. } = self;
        (Message { exchange: String::new(), routing_key, properties, body }, acker)
    }
}

fn number(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::LongLongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::Timestamp(n) => Some(*n),
        _ => None,
    }
}

/// Values of the label `how` of `forebay_broker_settled_total`. That of a requeue keeps its published name.
const ACK: &str = "ack";
const REQUEUE: &str = "hand_back";

/// Settles one delivery for a [`JobSource`](super::JobSource) that is not RabbitMQ. Those that settle return whether
/// the delivery was still there.
pub trait Settlement: Send + Sync {
    /// Whether the delivery is still there to be settled.
    fn is_held(&self) -> bool {
        true
    }
    /// The message is done with.
    fn ack(self: Box<Self>) -> bool;
    /// The message goes back to its queue as it came.
    fn requeue(self: Box<Self>) -> bool;
}

/// Settles one delivery. Each way to settle consumes it, so nothing is settled twice; one that is
/// dropped unsettled gives its message back to its queue.
pub struct Acker {
    to: Option<To>,
    /// The share of its subscription's window. It is free again when the delivery is settled.
    held: Option<Held>,
}

/// The other side of an [`Acker`].
enum To {
    /// RabbitMQ, on the delivery's own channel. That closes with its last user, and a closed channel
    /// can't settle.
    Broker { tag: u64, channel: Arc<ConsumerChannel> },
    /// Another source of jobs.
    Other(Box<dyn Settlement>),
}

impl Acker {
    /// An acker for a delivery that another source than RabbitMQ made.
    pub fn new(settlement: impl Settlement + 'static) -> Self {
        Self { to: Some(To::Other(Box::new(settlement))), held: None }
    }

    pub(super) fn of_broker(tag: u64, channel: Arc<ConsumerChannel>) -> Self {
        Self { to: Some(To::Broker { tag, channel }), held: None }
    }

    /// Holds a share of a window until the delivery is settled.
    #[must_use]
    pub fn holding(mut self, held: Held) -> Self {
        self.held = Some(held);
        self
    }

    /// Takes so many bytes more of the window.
    pub fn hold_more(&mut self, bytes: u64) {
        if let Some(held) = &mut self.held {
            held.grow(bytes);
        }
    }

    /// Whether the delivery is still this program's to settle. When its channel is gone the broker delivers the message
    /// again, maybe to another: work on this copy that has not begun is of no use.
    pub fn is_held(&self) -> bool {
        self.to.as_ref().is_some_and(To::is_usable)
    }

    /// The message is done with. `false` when its channel is gone: the broker will deliver it again.
    pub async fn ack(self) -> bool {
        Self::ack_all([self]).await == 1
    }

    /// All these messages are done with. As many as possible go into one acknowledgement. Returns how many
    /// acknowledgements could be sent.
    pub async fn ack_all(ackers: impl IntoIterator<Item = Self>) -> usize {
        let mut done = 0;
        let mut channels: Vec<(Arc<ConsumerChannel>, Vec<u64>)> = Vec::new();
        for mut acker in ackers {
            // The share is free before the broker can send more.
            if let Some(held) = acker.held.take() {
                held.settled();
            }
            match acker.to.take() {
                None => {}
                Some(To::Other(settlement)) => done += usize::from(settlement.ack()),
                Some(To::Broker { tag, channel }) => {
                    match channels.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &channel)) {
                        Some((_, tags)) => tags.push(tag),
                        None => channels.push((channel, vec![tag])),
                    }
                }
            }
        }
        for (channel, tags) in channels {
            let count = tags.len();
            let sent = channel.ack(tags).await;
            count_settled(ACK, sent, count as u64);
            done += if sent { count } else { 0 };
        }
        done
    }

    /// The message goes back to its queue as it came. `false` when its channel is gone.
    pub async fn requeue(mut self) -> bool {
        match self.to.take() {
            None => false,
            Some(to) => to.requeue().await,
        }
    }
}

impl To {
    async fn requeue(self) -> bool {
        match self {
            Self::Other(settlement) => settlement.requeue(),
            Self::Broker { tag, channel } => {
                let sent = channel.requeue(tag).await;
                count_settled(REQUEUE, sent, 1);
                sent
            }
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::Broker { channel, .. } => channel.is_open(),
            Self::Other(settlement) => settlement.is_held(),
        }
    }
}

fn count_settled(how: &'static str, sent: bool, count: u64) {
    let result = if sent { "done" } else { "lost" };
    metrics::counter!("forebay_broker_settled_total", "how" => how, "result" => result)
        .increment(count);
}

impl Drop for Acker {
    fn drop(&mut self) {
        match self.to.take() {
            Some(To::Other(settlement)) => {
                settlement.requeue();
            }
            Some(to @ To::Broker { .. }) if to.is_usable() => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(to.requeue());
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Acker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Recorder(std::sync::mpsc::Sender<&'static str>);

    impl Settlement for Recorder {
        fn ack(self: Box<Self>) -> bool {
            self.0.send(ACK).is_ok()
        }

        fn requeue(self: Box<Self>) -> bool {
            self.0.send(REQUEUE).is_ok()
        }
    }

    #[test]
    fn a_delivery_is_settled_once_and_requeued_when_its_acker_is_dropped() {
        let (sender, settled) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(Acker::new(Recorder(sender.clone())).ack()));
        drop(Acker::new(Recorder(sender)));
        assert_eq!(settled.iter().collect::<Vec<_>>(), [ACK, REQUEUE]);
    }
}
