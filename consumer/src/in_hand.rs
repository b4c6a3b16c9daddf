//! The jobs in hand: taken from the broker and not settled yet.
//!
//! Heartbeats, the end of an idle worker and the wait for its last acknowledgements go by these counts. What is only
//! reported is in [`stats`](crate::stats).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use forebay_fabric::clock::Clock;
use tokio::sync::Notify;

/// The jobs in hand.
#[derive(Debug, Default)]
pub struct InHand {
    jobs: AtomicU64,
    settled: AtomicU64,
    moved_at_ms: AtomicU64,
    settled_at_ms: AtomicU64,
    idle_changed: Notify,
    emptied: Notify,
    clock: Clock,
}

impl InHand {
    /// No job, by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// A message was taken.
    pub fn taken(&self) {
        if self.jobs.fetch_add(1, Relaxed) == 0 {
            // Until now there was nothing to do.
            self.moved_at_ms.store(self.clock.now_ms(), Relaxed);
            self.idle_changed.notify_one();
        }
    }

    /// So many messages were settled.
    pub fn settled(&self, jobs: u64) {
        self.settled.fetch_add(jobs, Relaxed);
        self.moved_at_ms.store(self.clock.now_ms(), Relaxed);
        self.settled_at_ms.store(self.clock.now_ms(), Relaxed);
        if self.jobs.fetch_sub(jobs, Relaxed) == jobs {
            self.idle_changed.notify_one();
            self.emptied.notify_waiters();
        }
    }

    /// Jobs taken and not settled yet.
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Relaxed)
    }

    /// Jobs settled so far.
    pub fn jobs_done(&self) -> u64 {
        self.settled.load(Relaxed)
    }

    /// When a first job was taken, or any was settled, in Unix milliseconds; 0 before.
    pub fn moved_at_ms(&self) -> u64 {
        self.moved_at_ms.load(Relaxed)
    }

    /// How long ago a job was settled last.
    pub fn since_settled(&self) -> Duration {
        let settled_at_ms = self.settled_at_ms.load(Relaxed);
        Duration::from_millis(self.clock.now_ms().saturating_sub(settled_at_ms))
    }

    /// Waits until no job is in hand; for any number of waiters.
    pub async fn until_empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.jobs() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until the first job is taken or the last one is settled; for one waiter.
    pub async fn idle_changed(&self) {
        self.idle_changed.notified().await;
    }
}
