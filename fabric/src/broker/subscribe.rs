//! Subscriptions: the deliveries of a queue, resumed after every reconnect.

use std::{io, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Connection, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Broker, consumer_channel::ConsumerChannel, delivery::Delivery, error::BrokerError,
    link,
};
use crate::backoff::Backoff;

/// The deliveries of one queue.
#[derive(Debug)]
pub struct Subscription {
    deliveries: mpsc::Receiver<Delivery>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Subscription {
    /// The next delivery; `None` once stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// Asks the broker for no more deliveries. Those that it has sent already still arrive, then [`Self::next`]
    /// returns `None`.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Cancels the consumer and gives back the deliveries that have not been taken yet. Those already taken can
    /// still be settled.
    pub async fn stop(mut self) {
        self.cancel();
        self.deliveries.close();
        while let Some(delivery) = self.deliveries.recv().await {
            delivery.acker.requeue().await;
        }
        // The task ends by itself at the token; a panic in it has been logged by then.
        let _ = self.task.await;
    }
}

/// A source of deliveries: a subscription, or a test's stand-in.
pub trait JobSource: Send {
    /// The next delivery; `None` when there will be none.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// Asks for no more deliveries. Those that were sent already still arrive.
    fn cancel(&mut self);

    /// Ends, and gives back the deliveries that have not been taken yet.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl JobSource for Subscription {
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Subscription::next(self).boxed()
    }

    fn cancel(&mut self) {
        Subscription::cancel(self);
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Subscription::stop(*self).boxed()
    }
}

struct Subscriber {
    broker: Broker,
    queue: String,
    prefetch: u16,
    deliveries: mpsc::Sender<Delivery>,
    stop: CancellationToken,
}

impl Broker {
    /// Subscribes to `queue` with at most `prefetch` deliveries unsettled, now and after every
    /// reconnect.
    pub fn subscribe(&self, queue: &str, prefetch: u16) -> Subscription {
        let (sender, deliveries) = mpsc::channel(BUFFERED_MAX);
        let stop = CancellationToken::new();
        let subscriber = Subscriber {
            broker: self.clone(),
            queue: queue.into(),
            prefetch,
            deliveries: sender,
            stop: stop.clone(),
        };
        Subscription { deliveries, stop, task: tokio::spawn(subscriber.run()) }
    }
}

/// The most deliveries that wait between the subscription's task and its consumer. With one slot, the two tasks would
/// wake each other for every delivery.
const BUFFERED_MAX: usize = 64;
/// The longest that the last deliveries may be in transit, once nothing is settled any more.
const TRANSIT_MAX: Duration = Duration::from_millis(500);
/// The longest that the broker may take to begin a subscription, or to end it.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

impl Subscriber {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let up = self.stop.run_until_cancelled(link::next_up(self.broker.link())).await;
            let Some(Some(connection)) = up else { return };
            match self.consume(&connection, &mut backoff).await {
                Ok(()) => return,
                Err(error) => {
                    let pause = backoff.next_pause();
                    let again_in_ms = pause.as_millis() as u64;
                    tracing::warn!(queue = self.queue, %error, again_in_ms, "subscription lost");
                    self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
        }
    }

    /// Passes deliveries on until stopped; an error when the channel or the consumer is lost.
    async fn consume(
        &self,
        connection: &Connection,
        backoff: &mut Backoff,
    ) -> Result<(), BrokerError> {
        let failed = |e| BrokerError::command(format!("subscribing to `{}`", self.queue), e);
        let (channel, mut consumer) = tokio::time::timeout(OPEN_WITHIN, self.open(connection))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(failed)?;
        tracing::info!(queue = self.queue, prefetch = self.prefetch, "subscribed");
        loop {
            let delivery = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                delivery = consumer.next() => delivery,
            };
            let delivery = match delivery {
                Some(Ok(delivery)) => Delivery::new(delivery, channel.clone()).await,
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(BrokerError::Closed),
            };
            backoff.reset();
            if let Err(unsent) = self.deliveries.send(delivery).await {
                unsent.0.acker.requeue().await;
                break;
            }
        }
        let cancelled = tokio::time::timeout(OPEN_WITHIN, cancel(&channel, &consumer))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        // A consumer that could not be cancelled ends with its channel.
        cancelled.map_err(failed)?;
        // Deliveries that the broker had sent before it cancelled are still passed on.
        while let Some(Ok(delivery)) = consumer.next().await {
            let sent = self.deliveries.send(Delivery::new(delivery, channel.clone()).await).await;
            if let Err(unsent) = sent {
                unsent.0.acker.requeue().await;
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        connection: &Connection,
    ) -> lapin::Result<(Arc<ConsumerChannel>, Consumer)> {
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let queue = self.queue.as_str().into();
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
        Ok((Arc::new(ConsumerChannel::new(channel)), consumer))
    }
}

/// Cancels a consumer when no delivery is in transit to it any more: RabbitMQ drops what a quorum queue sends to a
/// consumer that has just been cancelled, and redelivers it only once the channel is closed. While nothing is settled,
/// the broker sends no more than the prefetch still allows.
async fn cancel(channel: &ConsumerChannel, consumer: &Consumer) -> lapin::Result<()> {
    let _settling_stopped = channel.settling.write().await;
    if let Some(pause) = TRANSIT_MAX.checked_sub(channel.idle_for()) {
        tokio::time::sleep(pause).await;
    }
    channel.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
}
