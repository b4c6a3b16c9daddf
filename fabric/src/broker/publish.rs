//! Publishing: mandatory, confirmed, bounded, and repeated over reconnects until its time is up.

use std::{pin::pin, task::Poll, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::time::Instant;

use futures_util::{FutureExt, future::BoxFuture, poll};

use super::{
    connection::Broker,
    error::{PublishError, bytes_max, is_refused},
    link::Link,
};
use crate::backoff::Backoff;

/// The AMQP properties of a message.
pub type Properties = BasicProperties;

/// The headers of a message.
pub type Headers = FieldTable;
/// The value of one header.
pub type HeaderValue = AMQPValue;

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Message {
    /// The exchange; empty for the default one, which routes by queue name.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// The AMQP properties.
    pub properties: Properties,
    /// The body.
    pub body: Vec<u8>,
}

/// A publisher: the broker, or a test's stand-in.
pub trait Publisher: Send + Sync {
    /// Publishes and waits until the broker confirms that the message is on a queue.
    fn publish<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), PublishError>>;
}

impl Publisher for Broker {
    fn publish<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), PublishError>> {
        Broker::publish(self, message).boxed()
    }
}

enum Attempt {
    Done,
    Never(PublishError),
    Again(String),
}

impl Broker {
    /// Publishes and waits until the broker confirms that the message is on a queue. Many of these may run at
    /// once: they share channels, and their confirmations are awaited together.
    pub async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        // A message that is too large would cost every other one on its channel a second try.
        let bytes_max = self.inner.config.message_bytes_max;
        too_large(message, bytes_max).map_or(Ok(()), Err)?;
        let after_ms = self.inner.config.publish_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(after_ms);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut last = "it gave no reason".to_owned();
        loop {
            match tokio::time::timeout_at(deadline, self.attempt(message)).await {
                Ok(Attempt::Done) => return Ok(()),
                Ok(Attempt::Never(error)) => return Err(error),
                Ok(Attempt::Again(reason)) => last = reason,
                Err(_) => {
                    let last = self.why_slow().unwrap_or(last);
                    return Err(PublishError::Unconfirmed { after_ms, last });
                }
            }
            // The deadline ends this too: the next attempt finds it passed.
            tokio::time::sleep_until(deadline.min(Instant::now() + backoff.next_pause())).await;
        }
    }

    /// One attempt. An error of the channel leaves the outcome unknown: the message is sent again,
    /// which its id makes idempotent.
    async fn attempt(&self, message: &Message) -> Attempt {
        // The semaphore is never closed.
        let Ok(_permit) = self.inner.confirms.acquire().await else {
            return Attempt::Again("closed".into());
        };
        let pooled = match self.publishing().channels.get().await {
            Ok(pooled) => pooled,
            Err(error) => return Attempt::Again(error.to_string()),
        };
        let channel = Channel::clone(&pooled);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let mut sending = pin!(channel.basic_publish(
            message.exchange.as_str().into(),
            message.routing_key.as_str().into(),
            options,
            &message.body,
            message.properties.clone(),
        ));
        // The first poll numbers the message and queues its frames for the socket. For that this task needs the channel
        // to itself; while the frames are written, others may use it.
        let begun = poll!(sending.as_mut());
        drop(pooled);
        let sent = match begun {
            Poll::Ready(sent) => sent,
            Poll::Pending => sending.await,
        };
        let confirmation = match sent {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        match confirmation {
            Ok(Confirmation::Ack(None)) => Attempt::Done,
            Ok(Confirmation::Ack(Some(_))) => Attempt::Never(PublishError::Unroutable {
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
            }),
            Ok(Confirmation::Nack(_)) => {
                Attempt::Never(PublishError::Full { routing_key: message.routing_key.clone() })
            }
            // All channels of the pool are in confirm mode.
            Ok(Confirmation::NotRequested) => Attempt::Again("not in confirm mode".into()),
            Err(error) if is_refused(&error) => Attempt::Never(PublishError::Forbidden {
                exchange: message.exchange.clone(),
                reason: error.to_string(),
            }),
            Err(error) => match bytes_max(&error).and_then(|max| too_large(message, max)) {
                Some(error) => Attempt::Never(error),
                None => Attempt::Again(error.to_string()),
            },
        }
    }

    fn why_slow(&self) -> Option<String> {
        match &*self.publishing().link.borrow() {
            Link::Up { blocked, .. } => {
                blocked.as_ref().map(|reason| format!("the broker takes no publishes: {reason}"))
            }
            Link::Down { error } => error.as_ref().map(ToString::to_string),
        }
    }
}

fn too_large(message: &Message, bytes_max: usize) -> Option<PublishError> {
    let bytes = message.body.len();
    (bytes > bytes_max).then_some(PublishError::TooLarge { bytes, bytes_max })
}
