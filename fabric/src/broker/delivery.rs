//! A message in our hands, and the one value that can settle it.

use std::sync::Arc;

use lapin::types::AMQPValue;

use super::{
    consumer_channel::ConsumerChannel as Feed,
    publish::{Message, Properties},
};

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
    pub(super) async fn new(delivery: lapin::message::Delivery, feed: Arc<Feed>) -> Self {
        feed.brought(delivery.delivery_tag).await;
        let acker = Acker { to: Some(To::Broker { tag: delivery.delivery_tag, feed }) };
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

/// Settles one delivery. Each way to settle consumes it, so nothing is settled twice; one that is
/// dropped unsettled goes back to its queue.
pub struct Acker {
    to: Option<To>,
}

/// Who is told the verdict.
enum To {
    /// The broker, on the delivery's own channel. That closes with its last user, and a closed channel
    /// can't settle.
    Broker { tag: u64, feed: Arc<Feed> },
    /// Somebody in the broker's place.
    Other(Box<dyn FnOnce(Verdict) -> bool + Send + Sync>),
}

impl Acker {
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
        Self::ack_all([self]).await == 1
    }

    /// All these messages are done with. The broker is told of as many as possible in one word. How many could be told.
    pub async fn ack_all(ackers: impl IntoIterator<Item = Self>) -> usize {
        let mut done = 0;
        let mut feeds: Vec<(Arc<Feed>, Vec<u64>)> = Vec::new();
        for mut acker in ackers {
            match acker.to.take() {
                None => {}
                Some(To::Other(told)) => done += usize::from(told(Verdict::Ack)),
                Some(To::Broker { tag, feed }) => {
                    match feeds.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &feed)) {
                        Some((_, tags)) => tags.push(tag),
                        None => feeds.push((feed, vec![tag])),
                    }
                }
            }
        }
        for (feed, tags) in feeds {
            let count = tags.len();
            let told = feed.ack(tags).await;
            count_settled(Verdict::Ack, told, count as u64);
            done += if told { count } else { 0 };
        }
        done
    }

    /// The message goes back to its queue unharmed. `false` when its channel is gone.
    pub async fn hand_back(mut self) -> bool {
        match self.to.take() {
            None => false,
            Some(to) => to.hand_back().await,
        }
    }
}

impl To {
    async fn hand_back(self) -> bool {
        match self {
            Self::Other(told) => told(Verdict::HandBack),
            Self::Broker { tag, feed } => {
                let told = feed.hand_back(tag).await;
                count_settled(Verdict::HandBack, told, 1);
                told
            }
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::Broker { feed, .. } => feed.is_open(),
            Self::Other(_) => true,
        }
    }
}

fn count_settled(verdict: Verdict, told: bool, count: u64) {
    let result = if told { "done" } else { "lost" };
    metrics::counter!("forebay_broker_settled_total", "how" => verdict.as_str(), "result" => result)
        .increment(count);
}

impl Drop for Acker {
    fn drop(&mut self) {
        match self.to.take() {
            Some(To::Other(told)) => {
                told(Verdict::HandBack);
            }
            Some(to @ To::Broker { .. }) if to.is_usable() => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(to.hand_back());
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
