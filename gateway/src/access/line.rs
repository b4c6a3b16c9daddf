//! The requests of this replica that wait for an in-flight slot.
//!
//! The line itself is in Redis, one for each tenant, over all replicas. When a slot becomes free, Redis names the first
//! of the line on a channel; the replica that has that request wakes it, and it asks again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_fabric::Store;
use forebay_schemas::names::TURNS_CHANNEL;
use metrics::{gauge, histogram};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::subscribe::{Event, subscribe};

/// The most requests of this replica that wait. Each asks Redis once a second.
const WAITING_MAX: usize = 1_024;

/// The waiting requests by their leases' ids.
#[derive(Default)]
pub(super) struct Line(Mutex<HashMap<String, Arc<Notify>>>);

/// A request in the line, until this is dropped.
pub(super) struct Waiter {
    line: Arc<Line>,
    lease: String,
    turn: Arc<Notify>,
    since: Instant,
}

impl Line {
    /// A line whose requests are woken by what `store` publishes, until `stop`.
    pub(super) fn start(store: &Store, stop: &CancellationToken) -> Arc<Self> {
        let line = Arc::<Self>::default();
        let called = line.clone();
        subscribe(store.clone(), TURNS_CHANNEL, stop.clone(), move |event| match event {
            Event::Message(lease) => called.call(lease),
            // Turns were missed. Each request asks by itself within a second.
            Event::Subscribed => {}
        });
        line
    }

    /// Lets a request wait for its turn; `None` if too many wait.
    pub(super) fn enter(self: &Arc<Self>, lease: &str) -> Option<Waiter> {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        let turn = Arc::new(Notify::new());
        waiting.insert(lease.to_owned(), turn.clone());
        gauge!("forebay_gateway_waiting").set(waiting.len() as f64);
        Some(Waiter { line: self.clone(), lease: lease.to_owned(), turn, since: Instant::now() })
    }

    fn call(&self, lease: &str) {
        if let Some(turn) = self.waiting().get(lease) {
            // Kept for one that is asking just now.
            turn.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Returns when it is this request's turn.
    pub(super) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting();
        waiting.remove(&self.lease);
        gauge!("forebay_gateway_waiting").set(waiting.len() as f64);
        let ms = self.since.elapsed().as_secs_f64() * 1e3;
        histogram!("forebay_gateway_wait_ms").record(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_is_named_is_woken_also_if_it_listens_later() {
        let line = Arc::<Line>::default();
        let one = line.enter("a").unwrap();
        let two = line.enter("b").unwrap();
        line.call("b");
        line.call("of another replica");
        two.turn().await;
        assert!(futures_util::FutureExt::now_or_never(one.turn()).is_none());
        drop(one);
        drop(two);
        assert!(line.waiting().is_empty());
    }

    #[test]
    fn a_replica_s_line_is_bounded() {
        let line = Arc::<Line>::default();
        let mut all: Vec<Waiter> =
            (0..WAITING_MAX).map(|n| line.enter(&n.to_string()).unwrap()).collect();
        assert!(line.enter("one more").is_none());
        all.pop();
        assert!(line.enter("one more").is_some());
    }
}
