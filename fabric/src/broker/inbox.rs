//! The deliveries between a subscription's task and its consumer: a queue that the task may take back from.
//!
//! It has no limit of its own: the [`Window`](super::Window) bounds what it holds, in deliveries and in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::delivery::Delivery;

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    /// No more will come.
    has_ended: bool,
    /// No more are taken.
    is_closed: bool,
}

/// The task's half. The inbox ends with it.
#[derive(Debug)]
pub(super) struct Sender(Arc<Inbox>);

/// The consumer's half. What is left in it when it is dropped goes back to its queue.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Inbox>);

/// An empty inbox.
pub(super) fn channel() -> (Sender, Receiver) {
    let inbox = Arc::new(Inbox::default());
    (Sender(inbox.clone()), Receiver(inbox))
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Puts a delivery in. When no more are taken, it is dropped, and so goes back to its queue.
    pub(super) fn send(&self, delivery: Delivery) {
        let mut waiting = self.0.waiting();
        if !waiting.is_closed {
            waiting.deliveries.push_back(delivery);
            drop(waiting);
            self.0.came.notify_one();
        }
    }

    /// Takes back so many of the deliveries that came last, as far as they have not been received.
    pub(super) fn take_back(&self, count: usize) -> Vec<Delivery> {
        let mut waiting = self.0.waiting();
        let kept = waiting.deliveries.len().saturating_sub(count);
        waiting.deliveries.split_off(kept).into()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.waiting().has_ended = true;
        self.0.came.notify_one();
    }
}

impl Receiver {
    /// The next delivery; `None` when no more will come. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        loop {
            {
                let mut waiting = self.0.waiting();
                if let Some(delivery) = waiting.deliveries.pop_front() {
                    return Some(delivery);
                }
                if waiting.has_ended {
                    return None;
                }
            }
            // A delivery that came since then has left a permit, with which this returns at once.
            self.0.came.notified().await;
        }
    }

    /// Takes no more. Returns what has not been received.
    pub(super) fn close(&mut self) -> Vec<Delivery> {
        let mut waiting = self.0.waiting();
        waiting.is_closed = true;
        std::mem::take(&mut waiting.deliveries).into()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.close());
    }
}
