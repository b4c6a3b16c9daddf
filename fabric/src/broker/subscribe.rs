//! Subscriptions: the deliveries of a queue, resumed after every reconnect.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    connection::Broker, delivery::Delivery, inbox, subscriber::Subscriber, window::Window,
};

/// The deliveries of one queue.
#[derive(Debug)]
pub struct Subscription {
    deliveries: inbox::Receiver,
    window: Arc<Window>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Subscription {
    /// The next delivery; `None` once stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.next().await
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
        for delivery in self.deliveries.close() {
            delivery.acker.requeue().await;
        }
        // The task ends by itself at the token; a panic in it has been logged by then.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A source of deliveries: a subscription, or a test's stand-in.
pub trait JobSource: Send {
    /// The next delivery; `None` when there will be none.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// How much it may hold, and what it holds.
    fn window(&self) -> Arc<Window>;

    /// Asks for no more deliveries. Those that were sent already still arrive.
    fn cancel(&mut self);

    /// Ends, and gives back the deliveries that have not been taken yet.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl JobSource for Subscription {
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Subscription::next(self).boxed()
    }

    fn window(&self) -> Arc<Window> {
        self.window.clone()
    }

    fn cancel(&mut self) {
        Subscription::cancel(self);
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Subscription::stop(*self).boxed()
    }
}

impl Broker {
    /// Subscribes to `queue` within `window`, now and after every reconnect.
    pub fn subscribe(&self, queue: &str, window: Arc<Window>) -> Subscription {
        let (inbox, deliveries) = inbox::channel();
        let stop = CancellationToken::new();
        let subscriber = Subscriber {
            broker: self.clone(),
            queue: queue.into(),
            window: window.clone(),
            inbox,
            stop: stop.clone(),
        };
        Subscription { deliveries, window, stop, task: tokio::spawn(subscriber.run()) }
    }
}
