//! The task of a subscription: it consumes a queue within a [`Window`], on one connection after the other.
//!
//! RabbitMQ bounds what it sends by the prefetch, which counts messages and is fixed for a consumer when it begins. So
//! a window that grows is another consumer on the same channel, with the difference for its prefetch. One that shrinks
//! is another channel: the consumers of the one before are cancelled first, and it is closed once all that came on it
//! is settled. lapin puts what the broker sends into a channel without a limit. So this task never waits while a
//! consumer is open: a delivery that does not fit into the window loses its body at once, and is given back when there
//! is room for it or its consumer is cancelled.

use std::{collections::VecDeque, future::ready, io, mem, pin::pin, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::try_join_all,
    stream::{BoxStream, SelectAll, once},
};
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
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
/// As long for consumers that are replaced: their channel is closed soon, and a delivery that was in transit comes
/// again.
const TRANSIT_MAX_RESIZED: Duration = Duration::from_millis(100);
/// The longest that the broker may take to begin a subscription, or to end it.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// How often the room for what was refused is looked at where no delivery is settled meanwhile: what was given back
/// may have gone to another worker.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Subscriber {
    pub(super) broker: Broker,
    pub(super) queue: String,
    pub(super) window: Arc<Window>,
    pub(super) inbox: inbox::Sender,
    pub(super) stop: CancellationToken,
}

/// A consumer's deliveries, and `None` as the last item, which says that it has ended.
type Deliveries = BoxStream<'static, Option<lapin::Result<lapin::message::Delivery>>>;

/// The consumers of a channel, and what came for them.
struct Open {
    channel: Arc<ConsumerChannel>,
    deliveries: SelectAll<Deliveries>,
    consumer_tags: Vec<ShortString>,
    /// Of all consumers together.
    prefetch: u16,
    /// Deliveries that did not fit into the window, with their bytes. Dropped, they go back to their queue.
    refused: VecDeque<(Acker, u64)>,
    /// When the room for them is looked at next.
    look_at: Instant,
}

/// Why the consumers of a channel are cancelled.
enum End {
    Stopped,
    /// A smaller prefetch is wanted.
    Shrunk,
}

impl Open {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Arc::new(ConsumerChannel::new(channel)),
            deliveries: SelectAll::new(),
            consumer_tags: Vec::new(),
            prefetch: 0,
            refused: VecDeque::new(),
            look_at: Instant::now() + LOOK_EVERY,
        }
    }

    fn add(&mut self, consumer: Consumer, prefetch: u16) {
        self.consumer_tags.push(consumer.tag());
        self.deliveries.push(consumer.map(Some).chain(once(ready(None))).boxed());
        self.prefetch += prefetch;
    }

    /// The next delivery; `None` when a consumer has ended.
    async fn next(&mut self) -> Option<lapin::Result<lapin::message::Delivery>> {
        self.deliveries.next().await.flatten()
    }
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

    /// Passes deliveries on until stopped, on one channel after the other; an error when one is lost.
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
                let transit_max = match end {
                    End::Stopped => TRANSIT_MAX,
                    End::Shrunk => TRANSIT_MAX_RESIZED,
                };
                let quiet = self.quiet(&mut open, transit_max).await?;
                self.cancel(&mut open, quiet).await?;
                Ok(matches!(end, End::Stopped))
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
            let consumer = consumer(&channel, &self.queue, prefetch).await?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = self.in_time(opening).await?;
        let mut open = Open::new(channel);
        open.add(consumer, prefetch);
        self.window.opened(prefetch);
        self.window.set_refused(0);
        tracing::info!(queue = self.queue, prefetch, "subscribed");
        Ok(open)
    }

    /// Adds a consumer for the deliveries that are wanted more.
    async fn grow(&self, open: &mut Open, wanted: u16) -> Result<(), BrokerError> {
        let channel = open.channel.clone();
        let more = wanted - open.prefetch;
        let adding = self.in_time(consumer(&channel.channel, &self.queue, more));
        let added = self.take_during(open, adding).await??;
        open.add(added, more);
        self.window.opened(open.prefetch);
        tracing::debug!(queue = self.queue, prefetch = open.prefetch, "the window has grown");
        Ok(())
    }

    /// Takes deliveries until there is a reason to cancel the consumers.
    async fn until_end(&self, open: &mut Open, backoff: &mut Backoff) -> Result<End, BrokerError> {
        let mut wanted = self.window.watch_wanted();
        loop {
            let has_refused = !open.refused.is_empty();
            let look_at = open.look_at;
            let now_wanted = *wanted.borrow_and_update();
            if now_wanted < open.prefetch {
                return Ok(End::Shrunk);
            }
            if now_wanted > open.prefetch {
                self.grow(open, now_wanted).await?;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Stopped),
                delivery = open.next() => {
                    let came = self.came(delivery)?;
                    backoff.reset();
                    self.take(open, came).await;
                }
                // The sender lives as long as the window.
                _ = wanted.changed() => {}
                () = self.window.freed(), if has_refused => self.give_back_what_fits(open),
                () = sleep_until(look_at), if has_refused => self.give_back_what_fits(open),
            }
        }
    }

    /// Takes the deliveries that come while `other` is waited for.
    async fn take_during<T>(
        &self,
        open: &mut Open,
        other: impl Future<Output = T>,
    ) -> Result<T, BrokerError> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                delivery = open.next() => {
                    let came = self.came(delivery)?;
                    self.take(open, came).await;
                }
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
        let quiet = self.take_during(open, settling.write_owned()).await?;
        let channel = open.channel.clone();
        while channel.unsettled().await < open.prefetch.into() {
            let Some(pause) = transit_max.checked_sub(channel.idle_for()) else { break };
            tokio::select! {
                biased;
                delivery = open.next() => {
                    let came = self.came(delivery)?;
                    self.take(open, came).await;
                }
                () = sleep(pause) => {}
            }
        }
        Ok(quiet)
    }

    /// Cancels the consumers, with nothing in transit: RabbitMQ drops what a quorum queue sends to a consumer that has
    /// just been cancelled, and delivers it again only once the channel is closed. What was sent before is passed on.
    async fn cancel(
        &self,
        open: &mut Open,
        _quiet: OwnedRwLockWriteGuard<()>,
    ) -> Result<(), BrokerError> {
        let channel = open.channel.clone();
        let cancel_one = |tag| channel.channel.basic_cancel(tag, BasicCancelOptions::default());
        let tags = mem::take(&mut open.consumer_tags).into_iter();
        let mut cancelling = pin!(self.in_time(try_join_all(tags.map(cancel_one))));
        let mut is_cancelled = false;
        loop {
            tokio::select! {
                biased;
                delivery = open.deliveries.next() => match delivery {
                    Some(Some(Ok(came))) => self.take(open, came).await,
                    // A stream ends with its consumer, and all of them with the last.
                    Some(None) => {}
                    Some(Some(Err(_))) | None => break,
                },
                cancelled = &mut cancelling, if !is_cancelled => {
                    cancelled?;
                    is_cancelled = true;
                }
            }
        }
        if !is_cancelled {
            cancelling.await?;
        }
        Ok(())
    }

    /// Gives back what cancelled consumers should not have: what was refused, and what came last and is over a window
    /// that is smaller now, as far as it has not been received.
    async fn give_back(&self, mut open: Open) {
        let wanted = usize::from(self.window.wanted());
        let over = open.channel.unsettled().await.saturating_sub(wanted + open.refused.len());
        open.refused.clear();
        self.window.set_refused(0);
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

/// Begins to consume `queue` on `channel`, with a prefetch of its own.
async fn consumer(channel: &Channel, queue: &str, prefetch: u16) -> lapin::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
}
