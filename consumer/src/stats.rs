//! What the worker counts of itself, shared by the stages and told by the registry.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use forebay_fabric::clock::Clock;
use tokio::sync::Notify;

/// Running counts. Each is told on its own, so their order among each other does not matter.
#[derive(Debug, Default)]
pub struct Stats {
    in_flight: AtomicU64,
    jobs_done: AtomicU64,
    tokens_done: AtomicU64,
    busy_us: AtomicU64,
    progress_at_ms: AtomicU64,
    settled_at_ms: AtomicU64,
    pending_tokens: AtomicU64,
    /// The number of the engine's call that is under way; 0 between calls.
    engine_call: AtomicU64,
    engine_calls: AtomicU64,
    /// The number of the last batch that was computed.
    batch_computed: AtomicU64,
    /// Told of each.
    pub computed_one: Notify,
    /// Told when the first job is taken and when the last one is settled.
    pub idle_changed: Notify,
    clock: Clock,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Jobs taken and not yet settled.
    pub in_flight: u64,
    /// Jobs settled.
    pub jobs_done: u64,
    /// Tokens computed.
    pub tokens_done: u64,
    /// Milliseconds spent computing.
    pub busy_ms: u64,
    /// When a batch or a settlement last ended, or nothing was there to do.
    pub progress_at_ms: u64,
    /// Tokens that wait to be packed.
    pub pending_tokens: u64,
}

impl Stats {
    /// Counts that begin at nothing.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// A message was taken.
    pub fn taken(&self) {
        if self.in_flight.fetch_add(1, Relaxed) == 0 {
            // Until now there was nothing to do.
            self.progress_at_ms.store(self.clock.now_ms(), Relaxed);
            self.idle_changed.notify_one();
        }
    }

    /// So many messages were settled.
    pub fn settled(&self, jobs: u64) {
        self.jobs_done.fetch_add(jobs, Relaxed);
        self.progress_at_ms.store(self.clock.now_ms(), Relaxed);
        self.settled_at_ms.store(self.clock.now_ms(), Relaxed);
        if self.in_flight.fetch_sub(jobs, Relaxed) == jobs {
            self.idle_changed.notify_one();
        }
    }

    /// How long ago something was settled last.
    pub fn since_settled(&self) -> Duration {
        let settled_at_ms = self.settled_at_ms.load(Relaxed);
        Duration::from_millis(self.clock.now_ms().saturating_sub(settled_at_ms))
    }

    /// A batch was computed.
    pub fn computed(&self, number: u64, tokens: u64, took: Duration) {
        self.tokens_done.fetch_add(tokens, Relaxed);
        self.busy_us.fetch_add(took.as_micros() as u64, Relaxed);
        self.progress_at_ms.store(self.clock.now_ms(), Relaxed);
        self.batch_computed.store(number, Relaxed);
        self.computed_one.notify_one();
    }

    /// The number of the last batch that was computed; 0 before the first.
    pub fn batch_computed(&self) -> u64 {
        self.batch_computed.load(Relaxed)
    }

    /// The engine begins a call.
    pub fn call_begins(&self) {
        let call = self.engine_calls.fetch_add(1, Relaxed) + 1;
        self.engine_call.store(call, Relaxed);
    }

    /// The engine's call ended.
    pub fn call_ends(&self) {
        self.engine_call.store(0, Relaxed);
    }

    /// The number of the engine's call that is under way; 0 between calls.
    pub fn engine_call(&self) -> u64 {
        self.engine_call.load(Relaxed)
    }

    /// So many tokens wait to be packed.
    pub fn pending(&self, tokens: usize) {
        self.pending_tokens.store(tokens as u64, Relaxed);
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        let in_flight = self.in_flight.load(Relaxed);
        let idle = in_flight == 0;
        Snapshot {
            in_flight,
            jobs_done: self.jobs_done.load(Relaxed),
            tokens_done: self.tokens_done.load(Relaxed),
            busy_ms: self.busy_us.load(Relaxed) / 1_000,
            progress_at_ms: if idle {
                self.clock.now_ms()
            } else {
                self.progress_at_ms.load(Relaxed)
            },
            pending_tokens: self.pending_tokens.load(Relaxed),
        }
    }
}
