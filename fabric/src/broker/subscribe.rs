//! Subscriptions: deliveries as they come, over as many connections as it takes.

use std::{io, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Connection, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Broker, BrokerError, Delivery, feed::Feed, link};
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

    /// Asks the broker for no more. What it has sent already still comes, then [`Self::next`] says `None`.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Takes no more: cancels the consumer and hands back what has not been taken yet. Deliveries
    /// already taken can still be settled.
    pub async fn stop(mut self) {
        self.cancel();
        self.deliveries.close();
        while let Some(delivery) = self.deliveries.recv().await {
            delivery.acker.give_back().await;
        }
        // The task ends by itself at the token; a panic in it has been logged by then.
        let _ = self.task.await;
    }
}

/// Where deliveries come from: a subscription, or a test in its place.
pub trait JobSource: Send {
    /// The next delivery; `None` when there will be none.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// Asks for no more. What was handed out already still comes.
    fn cancel(&mut self);

    /// Takes no more, and hands back what has not been taken yet.
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
        let (sender, deliveries) = mpsc::channel(HANDFUL);
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

/// Deliveries that wait between the client and whoever takes them: for each one alone, two tasks would wake each other.
const HANDFUL: usize = 64;
/// How long the last deliveries may take from their queue, once nothing is settled any more.
const FLOW_ENDS: Duration = Duration::from_millis(500);
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
        let (feed, mut consumer) = tokio::time::timeout(OPEN_WITHIN, self.open(connection))
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
                Some(Ok(delivery)) => Delivery::new(delivery, feed.clone()).await,
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(BrokerError::Closed),
            };
            backoff.reset();
            if let Err(unsent) = self.deliveries.send(delivery).await {
                unsent.0.acker.give_back().await;
                break;
            }
        }
        let cancelled = tokio::time::timeout(OPEN_WITHIN, cancel(&feed, &consumer))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        // What is not cancelled ends with its channel.
        cancelled.map_err(failed)?;
        // What the broker sent ahead is passed on to who still takes it.
        while let Some(Ok(delivery)) = consumer.next().await {
            let sent = self.deliveries.send(Delivery::new(delivery, feed.clone()).await).await;
            if let Err(unsent) = sent {
                unsent.0.acker.give_back().await;
            }
        }
        Ok(())
    }

    async fn open(&self, connection: &Connection) -> lapin::Result<(Arc<Feed>, Consumer)> {
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel
            .basic_consume(self.queue.as_str().into(), "".into(), options, arguments)
            .await?;
        Ok((Arc::new(Feed::new(channel)), consumer))
    }
}

/// Asks the broker to forget a consumer, when nothing is on its way to it any more: RabbitMQ drops what a quorum queue
/// sends to one that has just been cancelled, and hands it out again once the channel is closed. While nothing is
/// settled, no more is sent than what the prefetch still allows.
async fn cancel(feed: &Feed, consumer: &Consumer) -> lapin::Result<()> {
    let _alone = feed.settling.write().await;
    if let Some(pause) = FLOW_ENDS.checked_sub(feed.still_for()) {
        tokio::time::sleep(pause).await;
    }
    feed.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
}
