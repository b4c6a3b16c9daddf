//! A message in our hands, and the one value that can settle it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
    types::AMQPValue,
};
use tokio::sync::RwLock;

use super::publish::{Message, Properties};

/// A message that was handed to us and must be settled.
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
    /// Whether somebody had it before.
    pub redelivered: bool,
    /// Settles it.
    pub acker: Acker,
}

impl Delivery {
    pub(super) fn new(delivery: lapin::message::Delivery, feed: Arc<Feed>) -> Self {
        Self {
            body: delivery.data,
            properties: delivery.properties,
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            acker: Acker::new(delivery.acker, feed),
        }
    }

    /// A whole, non-negative number from a header.
    pub fn header_number(&self, name: &str) -> Option<u64> {
        number(self.properties.headers().as_ref()?.inner().get(name)?)
    }

    /// How often the broker has handed it out before.
    pub fn delivery_count(&self) -> u64 {
        let counted = self.header_number("x-delivery-count").unwrap_or(0);
        counted.max(u64::from(self.redelivered))
    }

    /// The message as it came, and what settles it.
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

/// What is decided about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with.
    Ack,
    /// It goes back to its queue unharmed.
    HandBack,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::HandBack => "hand_back",
        }
    }
}

/// What the deliveries of one consumer have in common.
#[derive(Debug)]
pub(super) struct Feed {
    /// The channel on which they came.
    pub(super) channel: Channel,
    /// Shared by those who settle; whoever has it alone stops that for a moment, and with it the flow.
    pub(super) settling: RwLock<()>,
    moved_at: Mutex<Instant>,
}

impl Feed {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, settling: RwLock::new(()), moved_at: Mutex::new(Instant::now()) }
    }

    /// Something came or was settled: more may come for it.
    pub(super) fn moved(&self) {
        *self.moved_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub(super) fn still_for(&self) -> Duration {
        self.moved_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Settles one delivery. Each way to settle consumes it, so nothing is settled twice; one that is
/// dropped unsettled goes back to its queue.
pub struct Acker {
    to: Option<To>,
}

/// Who is told the verdict.
enum To {
    /// The broker, on the delivery's own channel. That closes with its last user, and a closed channel
    /// can't settle.
    Broker { acker: lapin::Acker, feed: Arc<Feed> },
    /// Somebody in the broker's place.
    Other(Box<dyn FnOnce(Verdict) -> bool + Send + Sync>),
}

impl Acker {
    fn new(acker: lapin::Acker, feed: Arc<Feed>) -> Self {
        Self { to: Some(To::Broker { acker, feed }) }
    }

    /// Settles nothing: for tests of what carries an acker.
    pub fn detached() -> Self {
        Self { to: None }
    }

    /// Tells the verdict to `told`, which answers whether the delivery was still there to be settled.
    pub fn telling(told: impl FnOnce(Verdict) -> bool + Send + Sync + 'static) -> Self {
        Self { to: Some(To::Other(Box::new(told))) }
    }

    /// The message is done with. `false` when its channel is gone: the broker will hand it out again.
    pub async fn ack(self) -> bool {
        self.settle(Verdict::Ack).await
    }

    /// The message goes back to its queue unharmed. `false` when its channel is gone.
    pub async fn hand_back(self) -> bool {
        self.settle(Verdict::HandBack).await
    }

    async fn settle(mut self, verdict: Verdict) -> bool {
        match self.to.take() {
            None => false,
            Some(to) => to.tell(verdict).await,
        }
    }
}

impl To {
    async fn tell(self, verdict: Verdict) -> bool {
        let done = match self {
            Self::Other(told) => told(verdict),
            // The channel is held until the broker has been told.
            Self::Broker { acker, feed } => {
                let telling = async {
                    let _open = feed.settling.read().await;
                    feed.moved();
                    match verdict {
                        Verdict::Ack => acker.ack(BasicAckOptions::default()).await,
                        Verdict::HandBack => acker.nack(HAND_BACK).await,
                    }
                };
                matches!(tokio::time::timeout(TOLD_WITHIN, telling).await, Ok(Ok(true)))
            }
        };
        let result = if done { "done" } else { "lost" };
        metrics::counter!("forebay_broker_settled_total", "how" => verdict.as_str(), "result" => result)
            .increment(1);
        done
    }
}

/// The longest that telling a verdict is waited for. It is written to the socket at once, unless the
/// connection was lost at that very moment: then nobody may ever say what became of it.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const HAND_BACK: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

impl Drop for Acker {
    fn drop(&mut self) {
        match self.to.take() {
            Some(To::Other(told)) => {
                told(Verdict::HandBack);
            }
            Some(to @ To::Broker { .. }) if to.is_usable() => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(to.tell(Verdict::HandBack));
                }
            }
            _ => {}
        }
    }
}

impl To {
    fn is_usable(&self) -> bool {
        match self {
            Self::Broker { acker, .. } => acker.usable(),
            Self::Other(_) => true,
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

    #[test]
    fn whoever_stands_in_for_the_broker_hears_each_verdict_once() {
        let (tell, heard) = std::sync::mpsc::channel();
        let acker = || {
            let tell = tell.clone();
            Acker::telling(move |verdict| tell.send(verdict).is_ok())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(acker().ack()));
        drop(acker());
        drop(tell);
        let verdicts: Vec<Verdict> = heard.iter().collect();
        assert_eq!(verdicts, [Verdict::Ack, Verdict::HandBack]);
    }
}
