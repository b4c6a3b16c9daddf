//! The task of a subscription: it consumes a queue within a [`Window`], on one connection after the other.
//!
//! RabbitMQ bounds what it sends by the prefetch, which counts messages and holds for new consumers only. So another
//! prefetch is another consumer on another channel, and the one before is cancelled first. lapin puts what the broker
//! sends into a channel without a limit. So this task never waits while a consumer is open: a delivery that does not
//! fit into the window loses its body at once, and is given back when there is room for it or its consumer is
//! cancelled.

use std::{collections::VecDeque, future::ready, io, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Connection, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::OwnedRwLockWriteGuard,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Broker,
    consumer_channel::ConsumerChannel,
    delivery::{Acker, Delivery},
    error::BrokerError,
    inbox, link,
    window::{Window, bytes_held},
};
use crate::backoff::Backoff;

/// The longest that the last deliveries may be in transit, once nothing is settled any more.
const TRANSIT_MAX: Duration = Duration::from_millis(500);
/// As long for a consumer that is replaced: its channel is closed soon, and a delivery that was in transit comes again.
const TRANSIT_MAX_RESIZED: Duration = Duration::from_millis(100);
/// The longest that the broker may take to begin a subscription, or to end it.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// How often the room for what was refused is looked at where no delivery is settled meanwhile: what was given back
/// may have gone to another worker.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A consumer that is to have more is replaced when it has all that its prefetch allows. Where acknowledgements go out
/// one by one it may never have that many at once: then settling stops for it, after this time ...
const GROW_AFTER: Duration = Duration::from_millis(20);
/// ... and again after this time, if it had fewer ...
const GROW_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// ... and none came for this time.
const FULL_WITHIN: Duration = Duration::from_millis(20);

pub(super) struct Subscriber {
    pub(super) broker: Broker,
    pub(super) queue: String,
    pub(super) window: Arc<Window>,
    pub(super) inbox: inbox::Sender,
    pub(super) stop: CancellationToken,
}

/// A consumer, and what came for it.
struct Open {
    channel: Arc<ConsumerChannel>,
    consumer: Consumer,
    prefetch: u16,
    /// Deliveries that did not fit into the window, with their bytes. Dropped, they go back to their queue.
    refused: VecDeque<(Acker, u64)>,
    /// When the room for them is looked at next.
    look_at: Instant,
}

/// Why a consumer is no longer consumed.
enum End {
    Stopped,
    /// Another prefetch is wanted. With the lock settling has stopped already, and nothing is in transit.
    Resized(Option<OwnedRwLockWriteGuard<()>>),
}

impl Subscriber {
    pub(super) async fn run(self) {
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
                    self.stop.run_until_cancelled(sleep(pause)).await;
                }
            }
        }
    }

    /// Passes deliveries on until stopped, by one consumer after the other; an error when one is lost.
    async fn consume(
        &self,
        connection: &Connection,
        backoff: &mut Backoff,
    ) -> Result<(), BrokerError> {
        loop {
            let mut open = self.open(connection).await?;
            let channel = open.channel.clone();
            let ended = async {
                let end = self.until_end(&mut open, backoff).await?;
                let is_stopped = matches!(end, End::Stopped);
                let quiet = match end {
                    End::Resized(Some(quiet)) => quiet,
                    End::Resized(None) => self.quiet(&mut open, TRANSIT_MAX_RESIZED).await?,
                    End::Stopped => self.quiet(&mut open, TRANSIT_MAX).await?,
                };
                self.cancel(&mut open, quiet).await?;
                Ok(is_stopped)
            };
            match ended.await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    // RabbitMQ 4.3 goes on delivering to a consumer that it has cancelled, as long as its channel is
                    // open.
                    channel.close().await;
                    return Err(error);
                }
            }
            drop(channel);
            self.give_back(open).await;
            if self.stop.run_until_cancelled(self.until_half_empty()).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn open(&self, connection: &Connection) -> Result<Open, BrokerError> {
        let prefetch = self.window.wanted();
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let queue = self.queue.as_str().into();
            let options = BasicConsumeOptions::default();
            let consumer =
                channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = self.in_time(opening).await?;
        self.window.opened(prefetch);
        self.window.set_refused(0);
        tracing::info!(queue = self.queue, prefetch, "subscribed");
        let channel = Arc::new(ConsumerChannel::new(channel));
        let look_at = Instant::now() + LOOK_EVERY;
        Ok(Open { channel, consumer, prefetch, refused: VecDeque::new(), look_at })
    }

    /// Takes deliveries until there is a reason to cancel the consumer.
    async fn until_end(&self, open: &mut Open, backoff: &mut Backoff) -> Result<End, BrokerError> {
        let mut wanted = self.window.watch_wanted();
        let prefetch = open.prefetch;
        let mut grow_at = Instant::now() + GROW_AFTER;
        loop {
            let has_refused = !open.refused.is_empty();
            let now_wanted = *wanted.borrow_and_update();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Stopped),
                delivery = open.consumer.next() => {
                    let came = self.came(delivery)?;
                    backoff.reset();
                    self.take(open, came).await;
                    if self.window.wanted() != prefetch
                        && let Some(quiet) = stop_settling_if_full(open).await
                    {
                        return Ok(End::Resized(Some(quiet)));
                    }
                }
                () = ready(()), if now_wanted < prefetch => return Ok(End::Resized(None)),
                () = sleep_until(grow_at), if now_wanted > prefetch => {
                    grow_at = Instant::now() + GROW_AGAIN_AFTER;
                    let quiet = self.quiet(open, FULL_WITHIN).await?;
                    // With fewer deliveries than it may have, the queue has no more.
                    if is_full(open).await {
                        return Ok(End::Resized(Some(quiet)));
                    }
                }
                // The sender lives as long as the window.
                _ = wanted.changed() => {}
                () = self.window.freed(), if has_refused => self.give_back_what_fits(open),
                () = sleep_until(open.look_at), if has_refused => self.give_back_what_fits(open),
            }
        }
    }

    /// Passes a delivery on, or keeps its tag alone where it does not fit.
    async fn take(&self, open: &mut Open, came: lapin::message::Delivery) {
        let tag = came.delivery_tag;
        open.channel.brought(tag).await;
        let Some(held) = self.window.hold(came.data.len()) else {
            metrics::counter!("forebay_broker_refused_total").increment(1);
            let bytes = bytes_held(came.data.len());
            open.refused.push_back((Acker::of_broker(tag, open.channel.clone()), bytes));
            self.window.set_refused(open.refused.len());
            return;
        };
        self.inbox.send(Delivery::new(came, open.channel.clone(), held));
    }

    /// Gives back as many of the refused deliveries as there is room for: the broker sends them again.
    fn give_back_what_fits(&self, open: &mut Open) {
        open.look_at = Instant::now() + LOOK_EVERY;
        let mut free = self.window.bytes_free();
        while let Some((acker, bytes)) = open.refused.pop_front() {
            if bytes > free {
                open.refused.push_front((acker, bytes));
                break;
            }
            // Whatever is free while nothing is held, it is for one delivery of any size.
            free = free.min(self.window.bytes_max().max(bytes)) - bytes;
        }
        self.window.set_refused(open.refused.len());
    }

    /// Stops settling, and waits until no delivery is in transit: while nothing is settled, the broker sends no more
    /// than the prefetch still allows. Where it allows more, none is in transit once none came for `transit_max`.
    async fn quiet(
        &self,
        open: &mut Open,
        transit_max: Duration,
    ) -> Result<OwnedRwLockWriteGuard<()>, BrokerError> {
        let settling = open.channel.settling.clone();
        let mut stopping = std::pin::pin!(settling.write_owned());
        let quiet = loop {
            tokio::select! {
                biased;
                delivery = open.consumer.next() => {
                    let came = self.came(delivery)?;
                    self.take(open, came).await;
                }
                quiet = &mut stopping => break quiet,
            }
        };
        while !is_full(open).await {
            let Some(pause) = transit_max.checked_sub(open.channel.idle_for()) else { break };
            tokio::select! {
                biased;
                delivery = open.consumer.next() => {
                    let came = self.came(delivery)?;
                    self.take(open, came).await;
                }
                () = sleep(pause) => {}
            }
        }
        Ok(quiet)
    }

    /// Cancels the consumer, with nothing in transit: RabbitMQ drops what a quorum queue sends to a consumer that has
    /// just been cancelled, and delivers it again only once the channel is closed. What was sent before is passed on.
    async fn cancel(
        &self,
        open: &mut Open,
        _quiet: OwnedRwLockWriteGuard<()>,
    ) -> Result<(), BrokerError> {
        let channel = open.channel.clone();
        let tag = open.consumer.tag();
        let options = BasicCancelOptions::default();
        let cancelling = self.in_time(channel.channel.basic_cancel(tag, options));
        let mut cancelling = std::pin::pin!(cancelling);
        let mut is_cancelled = false;
        loop {
            tokio::select! {
                biased;
                delivery = open.consumer.next() => match delivery {
                    Some(Ok(came)) => self.take(open, came).await,
                    // The stream ends with the consumer.
                    Some(Err(_)) | None => break,
                },
                cancelled = &mut cancelling, if !is_cancelled => {
                    cancelled?;
                    is_cancelled = true;
                }
            }
        }
        if is_cancelled { Ok(()) } else { cancelling.await }
    }

    /// Gives back what a cancelled consumer should not have: what was refused, and what came last and is over a window
    /// that is smaller now, as far as it has not been received.
    async fn give_back(&self, mut open: Open) {
        open.refused.clear();
        self.window.set_refused(0);
        let unsettled = open.channel.unsettled().await;
        let over = unsettled.saturating_sub(self.window.wanted().into());
        for delivery in self.inbox.take_back(over) {
            delivery.acker.requeue().await;
        }
    }

    /// Waits until so little is held that a new consumer makes no more than one and a half windows of it.
    async fn until_half_empty(&self) {
        while self.window.deliveries() > u64::from(self.window.wanted() / 2) {
            self.window.changed().await;
        }
    }

    fn came(
        &self,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<lapin::message::Delivery, BrokerError> {
        match delivery {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(BrokerError::Closed),
        }
    }

    /// The outcome of a request, which the broker answers in time or not at all.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        let answered = timeout(OPEN_WITHIN, request).await;
        let answered =
            answered.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        answered.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: lapin::Error) -> BrokerError {
        BrokerError::command(format!("subscribing to `{}`", self.queue), error)
    }
}

/// Whether the consumer has as many deliveries as the prefetch allows.
async fn is_full(open: &Open) -> bool {
    open.channel.unsettled().await >= open.prefetch.into()
}

/// Stops settling at once, if the consumer has as many deliveries as the prefetch allows: then none is in transit.
async fn stop_settling_if_full(open: &Open) -> Option<OwnedRwLockWriteGuard<()>> {
    let quiet = open.channel.settling.clone().try_write_owned().ok()?;
    is_full(open).await.then_some(quiet)
}
