//! A message in our hands, and the one value that can settle it.

use std::sync::Arc;

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions},
    types::AMQPValue,
};

use super::publish::Properties;

/// A message that was handed to us and must be settled.
#[derive(Debug)]
pub struct Delivery {
    /// The body.
    pub body: Vec<u8>,
    /// The AMQP properties.
    pub properties: Properties,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Whether somebody had it before.
    pub redelivered: bool,
    /// Settles it.
    pub acker: Acker,
}

impl Delivery {
    pub(super) fn new(delivery: lapin::message::Delivery, channel: Arc<Channel>) -> Self {
        Self {
            body: delivery.data,
            properties: delivery.properties,
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            acker: Acker { acker: Some(delivery.acker), channel: Some(channel) },
        }
    }

    /// A whole, non-negative number from a header.
    pub fn header_number(&self, name: &str) -> Option<u64> {
        let value = self.properties.headers().as_ref()?.inner().get(name)?;
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

    /// How often the broker has handed it out before.
    pub fn delivery_count(&self) -> u64 {
        self.header_number("x-delivery-count").unwrap_or(u64::from(self.redelivered))
    }
}

/// Settles one delivery. Each way to settle consumes it, so nothing is settled twice; one that is
/// dropped unsettled goes back to its queue.
pub struct Acker {
    acker: Option<lapin::Acker>,
    /// The channel closes with its last user, and a closed channel can't settle.
    channel: Option<Arc<Channel>>,
}

impl Acker {
    /// Settles nothing: for tests of what carries an acker.
    pub fn detached() -> Self {
        Self { acker: None, channel: None }
    }

    /// The message is done with. `false` when its channel is gone: the broker will hand it out again.
    pub async fn ack(mut self) -> bool {
        let Some(acker) = self.acker.take() else { return false };
        settled("ack", &acker.ack(BasicAckOptions::default()).await)
    }

    /// The message becomes a dead letter. `false` when its channel is gone.
    pub async fn dead_letter(mut self) -> bool {
        let Some(acker) = self.acker.take() else { return false };
        settled("dead_letter", &acker.reject(BasicRejectOptions { requeue: false }).await)
    }

    /// The message goes back to its queue unharmed. `false` when its channel is gone.
    pub async fn hand_back(mut self) -> bool {
        let Some(acker) = self.acker.take() else { return false };
        settled("hand_back", &acker.nack(HAND_BACK).await)
    }
}

const HAND_BACK: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

fn settled(how: &'static str, result: &lapin::Result<bool>) -> bool {
    let done = matches!(result, Ok(true));
    let result = if done { "done" } else { "lost" };
    metrics::counter!("forebay_broker_settled_total", "how" => how, "result" => result)
        .increment(1);
    done
}

impl Drop for Acker {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take().filter(lapin::Acker::usable) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let channel = self.channel.clone();
            runtime.spawn(async move {
                settled("hand_back", &acker.nack(HAND_BACK).await);
                drop(channel);
            });
        }
    }
}

impl std::fmt::Debug for Acker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acker")
    }
}
